"""Inputs cut into units: the frozen plan, and one unit opened for reading.

A unit is a fixed run of the sorted folder list, or one container such as a tar. The inputs alone decide what a unit
holds, never who encodes it.
"""

# Axes: P positions in a unit.

from __future__ import annotations

import errno
import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from imtok.counted import counted
from imtok.data.addresses import is_remote, redacted
from imtok.data.containers import UNKNOWN_SIZE, Container, ImageFile, LostImage, SourceImage, is_unsafe
from imtok.data.labels.origin import Labels
from imtok.data.packed_images import blocks_of
from imtok.data.remote_images import FetchedImages
from imtok.data.sources import ContainerFile, Sources
from imtok.errors import ImageError, SourceError
from imtok.tokens.json_lines import to_line
from imtok.tokens.plan import Extension, PlanEntry
from imtok.tokens.plan_lines import image_lines

OnDuplicate = Literal["fail", "suffix"]

# Errors that one bad file can cause. Others (too many open files, a server that went away) would be the unit's or
# the machine's trouble, and must not be recorded as a skip for ever.
_ONE_FILE = {errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class OpenUnit:
    """The inputs of a unit, by position."""

    number: int
    images: Sequence[SourceImage]  # P, in order
    keys: Sequence[str]  # P, each once but for those that are unsafe
    labels: Labels
    container: Container | None = None  # None for images of the folder list
    salvaged: str | None = None  # the damage a container was taken in spite of
    name: str = ""  # of the container in the plan
    fetched: FetchedImages | None = None  # images that lie on other machines
    _labels: dict[int, int | None] = field(default_factory=dict, init=False, repr=False)  # of those that were read

    @cached_property
    def renamed(self) -> int:
        """Count the keys that got a suffix."""
        return sum(key != image.key for key, image in zip(self.keys, self.images, strict=True))

    def read(self, position: int) -> bytes:
        """Read the bytes of an image; raises ImageError to skip this one, SourceError to fail the unit."""
        image = self.images[position]
        if is_unsafe(image.key):
            raise ImageError("unsafe name", image.key)
        try:
            data = self._read(position)
        except OSError as error:
            if error.errno in _ONE_FILE and isinstance(image, ImageFile):
                raise ImageError("unreadable", str(error)) from error
            raise SourceError(f"{redacted(image.address)}: {error.strerror or error}") from error
        if len(data) != image.size != UNKNOWN_SIZE:
            raise SourceError(
                f"{redacted(image.address)}: {len(data)} bytes, {image.size} when it was listed; it changes meanwhile"
            )
        return data

    def read_again(self, position: int) -> bytes | None:
        """Fetch an image of a list once more, as it may have been cut on its way: nobody knows its length.

        Returns None for all other images; raises as `read` does.
        """
        image = self.images[position]
        if self.fetched is None or image.size != UNKNOWN_SIZE or not is_remote(image.address):
            return None
        outcome = self.fetched.fetch(position)
        if isinstance(outcome, ImageError | SourceError):
            raise outcome
        return outcome.data

    def full_name(self, position: int) -> str:
        """Return the name of an image that no other of the job has: its container's, and its key."""
        return f"{self.name}\0{self.keys[position]}"

    def label(self, position: int) -> int | None:
        """Return the class number of an image, None where its input has none."""
        if self.fetched is not None and is_remote(self.images[position].address):
            return self._labels.pop(position)
        return self.labels.label(self.images[position], self.container)

    def close(self) -> None:
        """Let go of what was fetched for it, after which no image can be read."""
        if self.container is not None:
            self.container.close()
        if self.fetched is not None:
            self.fetched.close()

    def _read(self, position: int) -> bytes:
        image = self.images[position]
        if self.fetched is None or not is_remote(image.address):
            return image.read()
        data, self._labels[position] = self.fetched.read(position)
        return data


@dataclass(frozen=True)
class PlanPart:
    """Inputs that came to a job together, cut into units: those of the folder list first, then the containers."""

    files: Sequence[ImageFile | LostImage]
    containers: Sequence[ContainerFile]
    unit_size: int
    first_unit: int = 0

    @property
    def folder_units(self) -> int:
        """Units cut from the folder list."""
        return -(-len(self.files) // self.unit_size)

    def __len__(self) -> int:
        return self.folder_units + len(self.containers)

    @cached_property
    def entries_hash(self) -> str:
        """SHA-256 of the lines of the plan."""
        digest = hashlib.sha256()
        for lines in self.lines():
            digest.update(lines)
        return digest.hexdigest()

    def list_of_inputs(self, extension: Extension | None) -> Iterator[bytes]:
        """Yield the bytes of the list of inputs; that of an extension begins with its record."""
        if extension is not None:
            yield to_line(extension.model_copy(update={"entries": self.entries_hash}))
        yield from self.lines()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the plan, many at once."""
        yield from image_lines(blocks_of(self.files), self.unit_size, self.first_unit)
        for unit, container in enumerate(self.containers, self.first_unit + self.folder_units):
            yield to_line(PlanEntry(unit=unit, tar=container.name, bytes=container.size), exclude_none=True)


@dataclass(frozen=True)
class Plan:
    """The inputs of a job, cut into units; a part of its own for each time that inputs came."""

    parts: Sequence[PlanPart]
    labels: Labels
    sources: Sources

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def is_remote(self) -> bool:
        """Whether any input lies on another machine."""
        return self.sources.remote is not None

    def part_of(self, unit: int) -> int:
        """Return the number of the part that a unit belongs to."""
        return bisect_right(self.parts, unit, key=lambda part: part.first_unit) - 1

    def files(self, unit: int) -> Sequence[ImageFile | LostImage]:
        """Return the images of a unit of the folder list; none for a container."""
        part = self.parts[self.part_of(unit)]
        start = (unit - part.first_unit) * part.unit_size
        return part.files[start : start + part.unit_size]

    def images(self, unit: int) -> int:
        """Count the images of a unit of the folder list; 0 for a container, whose number only reading it shows."""
        part = self.parts[self.part_of(unit)]
        return max(0, min(part.unit_size, len(part.files) - (unit - part.first_unit) * part.unit_size))

    def container(self, unit: int) -> ContainerFile | None:
        """Return the container that is a unit, None for one of the folder list."""
        part = self.parts[self.part_of(unit)]
        position = unit - part.first_unit - part.folder_units
        return part.containers[position] if position >= 0 else None

    def name(self, unit: int) -> str:
        """Name a unit for a person: its container, or its first and last image."""
        if container := self.container(unit):
            return container.shown
        files = self.files(unit)
        return f"unit {unit} ({files[0].key} to {files[-1].key})"

    def open(self, unit: int, *, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit:
        """Open the inputs of a unit; raises SourceError where its container cannot be used."""
        if file := self.container(unit):
            return self._open_container(unit, file, salvage, on_duplicate)
        files = self.files(unit)
        fetched = None
        if self.sources.remote is not None and any(is_remote(file.address) for file in files):
            fetched = self.sources.remote.images.begin(
                files, lambda image: self.labels.label(image, None), salvage=salvage
            )
        return OpenUnit(unit, files, [image.key for image in files], self.labels, fetched=fetched)

    def _open_container(self, unit: int, file: ContainerFile, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit:
        container = file.open()
        try:
            opened = self._with_container(unit, container, salvage, on_duplicate)
            return replace(opened, name=file.name)
        except SourceError:
            container.close()
            raise

    def _with_container(self, unit: int, container: Container, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit:
        if container.problem and not salvage:
            hint = "copy it again" + (", or take what is readable with --salvage" if container.salvageable else "")
            raise SourceError(f"{container.problem}; {hint}")
        if not container.salvageable:
            raise SourceError(f"{container.problem}; nothing of it can be salvaged: copy it again or leave it out")
        if container.duplicates and on_duplicate == "fail":
            count, first = counted(len(container.duplicates), "key occurs", "keys occur"), container.duplicates[0]
            raise SourceError(f"{count} more than once, first {first}; rename with --on-duplicate suffix")
        keys = _unique_keys(container.images)
        return OpenUnit(unit, container.images, keys, self.labels, container, salvaged=container.problem)


def _unique_keys(images: Sequence[SourceImage]) -> list[str]:
    """Return the keys in order; one that occurred before becomes the first free of `x~2.jpg`, `x~3.jpg`, …"""
    taken = {image.key for image in images}
    others: dict[str, Iterator[str]] = {}  # names still to try for a key that has occurred
    keys: list[str] = []
    for image in images:
        key = image.key
        if key not in others:
            others[key] = _suffixed(key)
        elif not is_unsafe(key):
            key = next(name for name in others[key] if name not in taken)
            taken.add(key)
        keys.append(key)
    return keys


def _suffixed(key: str) -> Iterator[str]:
    stem, dot, suffix = key.rpartition(".")
    return (f"{stem}~{number}{dot}{suffix}" for number in itertools.count(2))
