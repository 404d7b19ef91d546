"""The images of an archive, packed: the places of their bytes are rows of whole numbers.

What lies beside an image is left out, as training reads no labels.
"""

# Axes: N images, F numbers of a part.

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.data.archives.members import ArchiveImage, Part
from imtok.data.containers import SourceImage
from imtok.data.packed_images import ImageObjects, PackedImages
from imtok.packed_strings import PackedStrings


def packed(images: Sequence[SourceImage]) -> PackedImages[SourceImage]:
    """Return the images of a container as packed as they can be, in their order."""
    if isinstance(images, PackedImages):
        return images
    kinds = Counter(type(image.part) for image in images if isinstance(image, ArchiveImage))
    if not kinds:
        return ImageObjects(images)
    kind: Any = kinds.most_common(1)[0][0]
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    if not fields or any(field.type not in (int, "int") for field in fields):
        return ImageObjects(images)
    names = [field.name for field in fields]
    numbers = np.zeros((len(images), len(names)), np.int64)
    odd: dict[int, SourceImage] = {}
    address = next(image.address for image in images if isinstance(image, ArchiveImage))
    for index, image in enumerate(images):
        if isinstance(image, ArchiveImage) and type(image.part) is kind and image.address == address:
            numbers[index] = [getattr(image.part, name) for name in names]
        else:
            odd[index] = image
    keys = PackedStrings.pack(image.key for image in images)
    sizes = np.fromiter((image.size for image in images), np.int64, len(images))
    return ArchiveImages(keys, sizes, address, kind, numbers, odd)


class ArchiveImages(PackedImages[SourceImage]):
    """Images of one archive: `numbers` (N, F) int64 make their parts by `kind`; `odd` are images that are objects."""

    def __init__(
        self,
        keys: PackedStrings,
        sizes: npt.NDArray[np.int64],
        address: str,
        kind: Callable[..., Part],
        numbers: npt.NDArray[np.int64],
        odd: Mapping[int, SourceImage],
    ) -> None:
        super().__init__(keys, sizes)
        self._address, self._kind, self._numbers, self._odd = address, kind, numbers, odd

    def image(self, index: int) -> SourceImage:
        """Make the image with this index, without what lies beside it."""
        if index in self._odd:
            return self._odd[index]
        return ArchiveImage(self.keys[index], self._address, self._kind(*self._numbers[index].tolist()))
