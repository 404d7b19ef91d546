"""All images that the SOURCE arguments name as one list with random access, for training and evaluation.

The list is packed: names, sizes and places lie in arrays, and a part of the list is an array of indices. So a million
images take less than 100 MB.
"""

# Axes: N images of a list.

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from imtok.data.archives.packed import packed
from imtok.data.containers import SourceImage
from imtok.data.images import decode_image
from imtok.data.packed_images import PackedImages
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.sources import ContainerFile, find_sources
from imtok.errors import SourceError
from imtok.parallel import in_order

_READERS = 8  # threads that read containers: a disk of a network answers each of their many reads late
_CHUNK = 4096  # images that are located at once


class _Block(NamedTuple):
    """Images of one place, whose keys begin with `prefix` in the list."""

    prefix: str
    images: PackedImages[SourceImage]


class ImageCollection:
    """A list of images, each under a key of its own: files first, then containers in the order given."""

    def __init__(
        self,
        blocks: Sequence[_Block],
        reading: Reading,
        notes: Sequence[str] = (),
        indices: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Take the images of the blocks with these indices (N,), all where there are none."""
        self._blocks, self.reading = blocks, reading
        self.notes = tuple(notes)  # what a person has to know about the sources
        self._starts = np.cumsum([0, *(len(block.images) for block in blocks)], dtype=np.int64)  # of blocks
        self._indices = indices

    @classmethod
    def open(cls, arguments: Sequence[str | Path], reading: Reading = DEFAULT_READING) -> ImageCollection:
        """Resolve SOURCE arguments; raises SourceError where one cannot be used or none holds an image."""
        sources = find_sources(arguments, reading)
        blocks, notes = [_Block("", packed(sources.files))], list(sources.notes)
        opening = in_order(_opened, sources.containers, workers=_READERS, ahead=2 * _READERS, one_core=False)
        for block, found in opening:
            blocks.append(block)
            notes += found
        images = cls(blocks, reading, notes)
        if not len(images):
            raise SourceError(f"{', '.join(map(str, arguments))}: no file of these holds an image; give others")
        return images

    @classmethod
    def of(cls, images: Sequence[SourceImage], reading: Reading = DEFAULT_READING) -> ImageCollection:
        """Make a list of images, whose own keys are those of the list."""
        return cls([_Block("", packed(images))], reading)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._indices is None else len(self._indices)

    def key(self, index: int) -> str:
        """Return the key of one image."""
        block, place = self._place(index)
        return block.prefix + block.images.keys[place]

    @property
    def keys(self) -> list[str]:
        """The images' keys, in order; `key` makes one alone."""
        return [
            block.prefix + key.decode()
            for block, places in self._runs()
            for key in block.images.keys.encoded_at(places)
        ]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The images' bytes, in order: (N,) int64."""
        sizes = np.concatenate([block.images.sizes for block in self._blocks], dtype=np.int64)
        return sizes if self._indices is None else sizes[self._indices]

    def read(self, index: int) -> bytes:
        """Read the bytes of one image; raises SourceError where its file has gone or cannot be read."""
        block, place = self._place(index)
        try:
            return block.images.image(place).read()
        except OSError as error:
            raise SourceError(f"{self.key(index)}: cannot be read ({error.strerror or error})") from error

    def picture(self, index: int) -> Image.Image:
        """Read and decode one image to RGB; raises ImageError or SourceError where that cannot be done."""
        return decode_image(self.read(index), self.reading)

    def split(self, val_fraction: float) -> tuple[ImageCollection, ImageCollection]:
        """Split into (training, validation); an image's own key decides, so that a grown set keeps its split."""
        held_out = chosen_by_position(np.fromiter(self._positions(), np.float64, len(self)), val_fraction)
        return self.only(np.flatnonzero(~held_out)), self.only(np.flatnonzero(held_out))

    def subsample(self, count: int) -> ImageCollection:
        """Take at most `count` of the images, evenly spaced over the list."""
        if count >= len(self):
            return self
        return self.only([index * len(self) // count for index in range(count)])

    def only(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ImageCollection:
        """Take the images with these indices."""
        taken = np.asarray(indices, np.int64)
        if self._indices is not None:
            taken = self._indices[taken]
        return ImageCollection(self._blocks, self.reading, indices=taken)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys and byte sizes, to check that a run resumes with the images it began with."""
        digest = hashlib.sha256()
        for block, places in self._runs():
            prefix, sizes = block.prefix.encode(), block.images.sizes[places].tolist()
            keys = block.images.keys.encoded_at(places)
            digest.update(b"".join(b"%b%b\0%d\n" % (prefix, key, size) for key, size in zip(keys, sizes, strict=True)))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for index in range(len(self)):
            yield self.key(index), self.read(index)

    def _place(self, index: int) -> tuple[_Block, int]:
        """Locate one image: its block and its place there."""
        number = range(len(self))[index]
        if self._indices is not None:
            number = int(self._indices[number])
        block = int(np.searchsorted(self._starts, number, "right")) - 1
        return self._blocks[block], number - int(self._starts[block])

    def _runs(self) -> Iterator[tuple[_Block, npt.NDArray[np.int64]]]:
        """Locate all images in order: some of one block at a time, by their places there."""
        for start in range(0, len(self), _CHUNK):
            stop = min(start + _CHUNK, len(self))
            numbers = np.arange(start, stop) if self._indices is None else self._indices[start:stop]
            blocks = np.searchsorted(self._starts, numbers, "right") - 1
            changes = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(blocks)]
            for first, last in pairwise(changes):
                block = int(blocks[first])
                yield self._blocks[block], numbers[first:last] - self._starts[block]

    def _positions(self) -> Iterator[float]:
        """Place the keys of all images in [0, 1), at the same numbers on every machine."""
        for block, places in self._runs():
            prefix = block.prefix.encode()
            for key in block.images.keys.encoded_at(places):
                yield position_of(prefix + key)


def chosen_by_position(positions: npt.NDArray[np.float64], val_fraction: float) -> npt.NDArray[np.bool_]:
    """Say which of N things are held out, by their positions (N,): one at least of several, and never all."""
    held_out = positions < val_fraction
    if val_fraction > 0 and len(positions) > 1 and not held_out.any():
        held_out[positions.argmin()] = True
    if held_out.all():
        held_out[positions.argmax()] = False
    return held_out


def position_of(key: bytes) -> float:
    """Place a key in [0, 1), at the same number on every machine."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64


def _opened(file: ContainerFile) -> tuple[_Block, list[str]]:
    """Read what a container holds, with notes; raises SourceError where it is not whole."""
    container = file.open()
    if container.problem:
        raise SourceError(f"{file.address}: {container.problem}; copy it again or leave it out")
    return _Block(f"{file.name}/", packed(container.images)), [f"{file.address}: {note}" for note in container.notes]
