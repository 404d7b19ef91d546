"""The images of an evaluation, cut into units: runs of a list of images, or the shards of a stream.

The inputs alone decide what a unit holds, never who measures it. So any process can measure a unit, again after a kill
too, and comes to the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imtok.data.addresses import is_remote
from imtok.data.collection import ImageCollection
from imtok.data.reading import Reading
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.single_pass import SinglePass


@dataclass(frozen=True)
class Unit:
    """A unit opened for reading."""

    number: int
    images: ImageCollection
    lost: int = 0  # images that its shard names but does not hold


class ListedUnits:
    """Runs of `unit_size` consecutive images of a list."""

    def __init__(self, images: ImageCollection, unit_size: int) -> None:
        self._images, self._unit_size = images, unit_size
        self.notes = images.notes  # what a person has to know about the sources
        self.failures: dict[str, str] = {}  # always empty: a list that opens can be read

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the keys and bytes of the images."""
        return self._images.fingerprint

    def __len__(self) -> int:
        return -(-len(self._images) // self._unit_size)

    def name(self, number: int) -> str:
        """Name a unit for a person."""
        return f"unit {number}"

    def size(self, number: int) -> int:
        """Return the number of images of a unit, unreadable ones included."""
        return len(self._numbers(number))

    def opened(self, numbers: Sequence[int], limit: int | None = None) -> Iterator[Unit]:
        """Open units one after the other; the list has been cut to its limit already."""
        assert limit is None
        for number in numbers:
            yield Unit(number, self._images.only(self._numbers(number)))

    def _numbers(self, number: int) -> range:
        return range(len(self._images))[number * self._unit_size : (number + 1) * self._unit_size]


class StreamedUnits:
    """The shards of a stream, each a unit; the next one is read while this one is measured."""

    def __init__(self, reader: ShardReader, allowed_failures: int) -> None:
        self._reader, self._allowed_failures = reader, allowed_failures
        self.notes: tuple[str, ...] = ()
        self.failures: dict[str, str] = {}  # reasons by the names of shards, once they have failed

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the stems of the shards' names."""
        return self._reader.shards.fingerprint

    def __len__(self) -> int:
        return len(self._reader.names)

    def name(self, number: int) -> str:
        """Return the redacted address of a shard."""
        return self._reader.names[number]

    def size(self, number: int) -> None:
        """Return None: a shard has to be read before its images can be counted."""

    def opened(self, numbers: Sequence[int], limit: int | None = None) -> Iterator[Unit]:
        """Open units one after the other, and the first `limit` of their images alone, where a limit is given.

        Raises ShardFailure where more shards fail than allowed.
        """
        shards = SinglePass(self._reader, allowed_failures=self._allowed_failures, limit=limit, numbers=numbers)
        self.failures = shards.failures
        for shard in shards:
            yield Unit(shard.number, shard.images, shard.lost)


Units = ListedUnits | StreamedUnits


def is_streamed(sources: Sequence[str | Path], stream: bool) -> bool:
    """Say whether SOURCEs are read as a stream: on request, and where one of them is a URL."""
    return stream or any(is_remote(str(source)) for source in sources)


def units_of(
    sources: Sequence[str | Path], *, reading: Reading, stream: bool, unit_size: int, limit: int | None, failures: int
) -> Units:
    """Cut SOURCEs into units: the shards of a stream, of which `failures` may fail, or runs of one list.

    A list is cut to `limit` images, evenly spaced. Raises SourceError where a SOURCE cannot be used.
    """
    if is_streamed(sources, stream):
        return StreamedUnits(ShardReader(find_shards(sources, reading), reading), failures)
    images = ImageCollection.open(sources, reading)
    return ListedUnits(images if limit is None else images.subsample(limit), unit_size)
