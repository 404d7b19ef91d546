"""All images that the SOURCE arguments name as one list with random access, for training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imtok.data.sources import ImageFile, find_sources
from imtok.data.tars import TarImage, TarIndex, index_tar
from imtok.errors import SourceError


@dataclass(frozen=True)
class _TarMember:
    """An image in a tar, under a key that no other tar's image has."""

    key: str
    tar: TarIndex
    image: TarImage

    @property
    def size(self) -> int:
        return self.image.size

    def read(self) -> bytes:
        return self.tar.read(self.image)


class ImageCollection:
    """A list of images: `keys[i]` and `read(i)`, files first, then tars in the order given."""

    def __init__(self, images: Sequence[ImageFile | _TarMember]) -> None:
        self._images = images

    @classmethod
    def open(cls, arguments: Sequence[str | Path]) -> ImageCollection:
        """Resolve SOURCE arguments; raises SourceError where one cannot be used or none holds an image."""
        sources = find_sources(arguments)
        images: list[ImageFile | _TarMember] = list(sources.files)
        for tar in sources.tars:
            index = index_tar(tar.path)
            if index.problem:
                raise SourceError(f"{tar.path}: {index.problem}; copy it again or leave it out")
            images += [_TarMember(f"{tar.name}/{image.key}", index, image) for image in index.images]
        if not images:
            raise SourceError(f"{', '.join(map(str, arguments))}: the tars hold no images; give others")
        return cls(images)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def keys(self) -> list[str]:
        """The images' keys, in order."""
        return [image.key for image in self._images]

    def read(self, index: int) -> bytes:
        """The bytes of one image; raises SourceError where its file has gone or cannot be read."""
        image = self._images[index]
        try:
            return image.read()
        except OSError as error:
            raise SourceError(f"{image.key}: cannot be read ({error.strerror or error})") from error

    def split(self, val_fraction: float) -> tuple[ImageCollection, ImageCollection]:
        """(training, validation) parts; an image's own key decides, so that a grown set keeps its split."""
        held_out = [_hash(image.key) < val_fraction for image in self._images]
        if val_fraction > 0 and len(self) > 1 and not any(held_out):
            held_out[min(range(len(self)), key=lambda i: _hash(self._images[i].key))] = True
        if all(held_out):
            held_out[max(range(len(self)), key=lambda i: _hash(self._images[i].key))] = False
        pairs = list(zip(self._images, held_out, strict=True))
        training = ImageCollection([image for image, out in pairs if not out])
        return training, ImageCollection([image for image, out in pairs if out])

    def subsample(self, count: int) -> ImageCollection:
        """At most `count` of the images, evenly spaced over the list."""
        if count >= len(self):
            return self
        return self.only([place * len(self) // count for place in range(count)])

    def only(self, places: Sequence[int]) -> ImageCollection:
        """The images at these places."""
        return ImageCollection([self._images[place] for place in places])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys and byte sizes, to tell whether a run goes on with the images it began with."""
        digest = hashlib.sha256()
        for image in self._images:
            digest.update(f"{image.key}\0{image.size}\n".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for index, key in enumerate(self.keys):
            yield key, self.read(index)


def _hash(key: str) -> float:
    """A key's place in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
