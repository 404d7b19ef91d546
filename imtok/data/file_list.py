"""The list of images that are files of their own, packed and in the byte order of their keys.

Most addresses are a folder and the key below it, so the folder is kept once. An image whose address is another, such
as one with a name that is not UTF-8, is kept as an object beside the arrays.
"""

# Axes: N images.

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from imtok.data.containers import ImageFile, LostImage, as_text
from imtok.data.packed_images import PackedImages
from imtok.errors import SourceError
from imtok.packed_strings import GrowingStrings, PackedStrings


class Place(NamedTuple):
    """The place that images come from: the beginnings of their keys and addresses, before the part that both share."""

    prefix: str
    folder: str


_NOWHERE = Place("", "")  # of images that are objects


class FileList(PackedImages[ImageFile | LostImage]):
    """Images by position; `numbers` (N,) int32 are those of their places, and `odd` are images that are objects."""

    def __init__(
        self,
        keys: PackedStrings,
        sizes: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int32],
        places: Sequence[Place],
        odd: Mapping[int, ImageFile | LostImage],
    ) -> None:
        super().__init__(keys, sizes)
        self._numbers, self._places, self._odd = numbers, places, odd

    def image(self, index: int) -> ImageFile | LostImage:
        """Make the image with this index."""
        if index in self._odd:
            return self._odd[index]
        key, place = self.keys[index], self._places[self._numbers[index]]
        return ImageFile(key, place.folder + key[len(place.prefix) :], int(self.sizes[index]))


class GrowingFileList:
    """Images that are found one after the other, in any order."""

    def __init__(self) -> None:
        self._keys = GrowingStrings()
        self._sizes, self._numbers = array("q"), array("i")
        self._places: dict[Place, int] = {}
        self._place, self._number = _NOWHERE, self._places.setdefault(_NOWHERE, 0)  # of the last image
        self._odd: dict[int, ImageFile | LostImage] = {}
        self._last = b""
        self._runs = array("q")  # first positions of runs whose keys are in order

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, place: Place, name: str, address: str, size: int) -> None:
        """Add a file whose key is `name` after the prefix of its place."""
        plain = name.isascii() or as_text(name) == name
        if plain and address == place.folder + name:
            self._add((place.prefix + name).encode(), size, place)
        else:
            self.add_object(ImageFile(place.prefix + as_text(name), address, size))

    def add_object(self, image: ImageFile | LostImage) -> None:
        """Add an image that stays an object."""
        self._odd[len(self)] = image
        self._add(image.key.encode(), image.size, _NOWHERE)

    def cut(self, count: int) -> list[ImageFile | LostImage]:
        """Keep the first `count` images alone; return those of the others that are objects."""
        cut = {index: image for index, image in self._odd.items() if index >= count}
        for index in cut:
            del self._odd[index]
        self._keys.cut(count)
        del self._sizes[count:], self._numbers[count:]
        while self._runs and self._runs[-1] >= count:
            self._runs.pop()
        self._last = self._keys.last
        return list(cut.values())

    def sorted(self) -> FileList:
        """Return the images in order, after which no more can be added; raises SourceError where two have one key."""
        numbers, sizes = np.frombuffer(self._numbers, np.int32), np.frombuffer(self._sizes, np.int64)
        keys, places = self._keys.packed(), tuple(self._places)
        found = FileList(keys, sizes, numbers, places, self._odd)
        if len(self._runs) <= 1:
            return found
        order = _joined(keys, [range(start, stop) for start, stop in pairwise([*self._runs, len(keys)])])
        if order is None:
            order = np.array(sorted(range(len(keys)), key=keys.encoded), np.int64)
            for one, other in pairwise(order.tolist()):
                if keys.encoded(one) == keys.encoded(other):
                    _refuse_twins(found.image(one), found.image(other))
        odd = {}
        if self._odd:
            odd = {place: self._odd[index] for place, index in enumerate(order.tolist()) if index in self._odd}
        return FileList(keys.take(order), sizes[order], numbers[order], places, odd)

    def _add(self, key: bytes, size: int, place: Place) -> None:
        if key <= self._last or not self._runs:
            self._runs.append(len(self._sizes))
        self._last = key
        self._keys.add(key)
        self._sizes.append(size)
        if place is not self._place:
            self._place, self._number = place, self._places.setdefault(place, len(self._places))
        self._numbers.append(self._number)


def _joined(keys: PackedStrings, runs: list[range]) -> npt.NDArray[np.int64] | None:
    """Return the order in which whole runs follow each other, as folders do; None where runs lie in each other."""
    runs.sort(key=lambda run: keys.encoded(run[0]))
    if any(keys.encoded(one[-1]) >= keys.encoded(other[0]) for one, other in pairwise(runs)):
        return None
    return np.concatenate([np.arange(run.start, run.stop, dtype=np.int64) for run in runs])


def _refuse_twins(one: ImageFile | LostImage, other: ImageFile | LostImage) -> NoReturn:
    raise SourceError(f"{one.address} and {other.address}: both would have the key {one.key}; give one of them")
