"""Images that are not yet read, packed: their names and sizes lie in arrays, and objects are made one at a time.

An object and a string for each of ten million images would fill gigabytes. Packed, an image takes its name and 8 to 25
bytes.
"""

# Axes: N images.

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from imtok.data.containers import SourceImage
from imtok.packed_strings import PackedStrings

_CHUNK = 4096  # images that are unpacked at once

_Image = TypeVar("_Image", bound=SourceImage, covariant=True)


class PackedImages(Sequence[_Image]):
    """A list of images that makes one as it is used: `keys` N strings, `sizes` (N,) bytes, int64 or int32."""

    def __init__(self, keys: PackedStrings, sizes: npt.NDArray[np.signedinteger[Any]]) -> None:
        self.keys, self._sizes = keys, sizes

    @property
    def sizes(self) -> npt.NDArray[np.signedinteger[Any]]:
        """The images' bytes: (N,) int64 or int32."""
        return self._sizes

    @abstractmethod
    def image(self, index: int) -> _Image:
        """Make the image with this index, which is not negative."""

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> _Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_Image]: ...
    def __getitem__(self, index: int | slice) -> _Image | Sequence[_Image]:
        if isinstance(index, slice):
            return [self.image(one) for one in range(len(self))[index]]
        return self.image(range(len(self))[index])

    def __iter__(self) -> Iterator[_Image]:
        return map(self.image, range(len(self)))

    def blocks(self) -> Iterator[tuple[list[bytes], list[int]]]:
        """Yield keys as UTF-8, and sizes, of some thousand images at a time, in order."""
        for start in range(0, len(self), _CHUNK):
            stop = min(start + _CHUNK, len(self))
            yield self.keys.encoded_at(np.arange(start, stop)), self.sizes[start:stop].tolist()

    def __eq__(self, other: object) -> bool:
        """Compare with another list, image by image."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class ImageObjects(PackedImages[SourceImage]):
    """Images of a reader that makes an object for each."""

    def __init__(self, images: Sequence[SourceImage]) -> None:
        keys = PackedStrings.pack(image.key for image in images)
        super().__init__(keys, np.fromiter((image.size for image in images), np.int64, len(images)))
        self._images = images

    def image(self, index: int) -> SourceImage:
        """Return the image with this index."""
        return self._images[index]


def keys_of(images: Sequence[SourceImage]) -> Iterable[str]:
    """Return the keys of images in order, where they are packed without an object for each."""
    return images.keys if isinstance(images, PackedImages) else (image.key for image in images)


def blocks_of(images: Sequence[SourceImage]) -> Iterator[tuple[list[bytes], list[int]]]:
    """Yield keys and sizes of images as `PackedImages.blocks` does, as `keys_of` does the keys."""
    if isinstance(images, PackedImages):
        yield from images.blocks()
    elif images:
        yield [image.key.encode() for image in images], [image.size for image in images]
