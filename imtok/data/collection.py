"""All images that the SOURCE arguments name as one list with random access, for training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from imtok.data.containers import SourceImage
from imtok.data.pixels.images import decode_image
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.sources import find_sources
from imtok.errors import SourceError


class ImageCollection:
    """A list of images, each under a key of its own: files first, then containers in the order given."""

    def __init__(self, images: Sequence[tuple[str, SourceImage]], reading: Reading, notes: Sequence[str] = ()) -> None:
        self._images, self.reading = images, reading
        self.notes = tuple(notes)  # what a person has to know about the sources

    @classmethod
    def open(cls, arguments: Sequence[str | Path], reading: Reading = DEFAULT_READING) -> ImageCollection:
        """Resolve SOURCE arguments; raises SourceError where one cannot be used or none holds an image."""
        sources = find_sources(arguments, reading)
        images: list[tuple[str, SourceImage]] = [(file.key, file) for file in sources.files]
        notes = list(sources.notes)
        for file in sources.containers:
            container = file.open()
            if container.problem:
                raise SourceError(f"{file.address}: {container.problem}; copy it again or leave it out")
            images += [(f"{file.name}/{image.key}", image) for image in container.images]
            notes += [f"{file.address}: {note}" for note in container.notes]
        if not images:
            raise SourceError(f"{', '.join(map(str, arguments))}: no file of these holds an image; give others")
        return cls(images, reading, notes)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def keys(self) -> list[str]:
        """The images' keys, in order."""
        return [key for key, _ in self._images]

    @property
    def sizes(self) -> list[int]:
        """The images' bytes, in order."""
        return [image.size for _, image in self._images]

    def read(self, index: int) -> bytes:
        """Read the bytes of one image; raises SourceError where its file has gone or cannot be read."""
        key, image = self._images[index]
        try:
            return image.read()
        except OSError as error:
            raise SourceError(f"{key}: cannot be read ({error.strerror or error})") from error

    def picture(self, index: int) -> Image.Image:
        """Read and decode one image to RGB; raises ImageError or SourceError where that cannot be done."""
        return decode_image(self.read(index), self.reading)

    def split(self, val_fraction: float) -> tuple[ImageCollection, ImageCollection]:
        """Split into (training, validation); an image's own key decides, so that a grown set keeps its split."""
        positions = [_position(key) for key in self.keys]
        held_out = [position < val_fraction for position in positions]
        if val_fraction > 0 and len(self) > 1 and not any(held_out):
            held_out[positions.index(min(positions))] = True
        if all(held_out):
            held_out[positions.index(max(positions))] = False
        training = [index for index, out in enumerate(held_out) if not out]
        return self.only(training), self.only([index for index, out in enumerate(held_out) if out])

    def subsample(self, count: int) -> ImageCollection:
        """Take at most `count` of the images, evenly spaced over the list."""
        if count >= len(self):
            return self
        return self.only([index * len(self) // count for index in range(count)])

    def only(self, indices: Sequence[int]) -> ImageCollection:
        """Take the images with these indices."""
        return ImageCollection([self._images[index] for index in indices], self.reading)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys and byte sizes, to check that a run resumes with the images it began with."""
        digest = hashlib.sha256()
        for key, image in self._images:
            digest.update(f"{key}\0{image.size}\n".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for index, key in enumerate(self.keys):
            yield key, self.read(index)


def _position(key: str) -> float:
    """Place a key in [0, 1), at the same number on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
