"""The list of images that are files of their own, packed and in the byte order of their keys.

Most addresses are a folder and the key below it, so the folder is kept once. An image whose address is another, such
as one with a name that is not UTF-8, is kept as an object beside the arrays. Ten million images, of one folder and the
folders in it, take their keys and 8 bytes each.
"""

# Axes: N images.

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from imtok.data.addresses import redacted
from imtok.data.containers import ImageFile, LostImage, as_text
from imtok.data.packed_images import PackedImages
from imtok.errors import SourceError
from imtok.packed_numbers import GrowingNumbers
from imtok.packed_strings import GrowingStrings, PackedStrings


class Place(NamedTuple):
    """The place that images come from: the beginnings of their keys and addresses, before the part that both share."""

    prefix: str
    folder: str


_NOWHERE = Place("", "")  # of images that are objects


class FileList(PackedImages[ImageFile | LostImage]):
    """Images by position; `numbers` (N,) are those of their places, and `odd` are images that are objects."""

    def __init__(
        self,
        keys: PackedStrings,
        sizes: npt.NDArray[np.signedinteger[Any]],
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
        self._keys = GrowingStrings(offsets=GrowingNumbers("I"))
        self._sizes = GrowingNumbers("i")  # signed, as UNKNOWN_SIZE is negative
        self._places: dict[Place, int] = {}
        self._place: Place | None = None  # of the last image
        self._changes = array("q")  # first positions of images that follow each other and have one place
        self._numbers = array("i")  # of these places
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

    def add_folder(self, place: Place, folder: str, names: Sequence[str], sizes: Sequence[int]) -> None:
        """Add files of one folder, whose keys are `folder` and the name after the prefix of their place.

        There is one at least, and addresses are those that place and key make.
        """
        prefix = f"{place.prefix}{folder}"
        ascending = all(map(operator.lt, names, islice(names, 1, None)))
        if not (ascending and prefix.isascii() and "".join(names).isascii()):
            for name, size in zip(names, sizes, strict=True):
                self.add(place, f"{folder}{name}", f"{place.folder}{folder}{name}", size)
            return
        self._note(f"{prefix}{names[0]}".encode(), place)
        self._keys.add_ascii(names, prefix)
        self._sizes.extend(np.array(sizes, np.int64))
        self._last = self._keys.last

    def add_object(self, image: ImageFile | LostImage) -> None:
        """Add an image that stays an object."""
        self._odd[len(self)] = image
        self._add(image.key.encode(), image.size, self._place or _NOWHERE)

    def cut(self, count: int) -> list[ImageFile | LostImage]:
        """Keep the first `count` images alone; return those of the others that are objects."""
        cut = {index: image for index, image in self._odd.items() if index >= count}
        for index in cut:
            del self._odd[index]
        self._keys.cut(count)
        self._sizes.cut(count)
        del self._runs[bisect_left(self._runs, count) :]
        kept = bisect_left(self._changes, count)
        del self._changes[kept:], self._numbers[kept:]
        self._place = list(self._places)[self._numbers[-1]] if kept else None
        self._last = self._keys.last
        return list(cut.values())

    def sorted(self) -> FileList:
        """Return the images in order, after which no more can be added; raises SourceError where two have one key."""
        numbers, sizes = self._numbers_of_places(), self._sizes.packed()
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
        self._note(key, place)
        self._last = key
        self._keys.add(key)
        self._sizes.append(size)

    def _note(self, key: bytes, place: Place) -> None:
        """Begin a new run where a key is not in order, and note another place."""
        if key <= self._last or not self._runs:
            self._runs.append(len(self))
        if place is not self._place:
            self._place = place
            self._changes.append(len(self))
            self._numbers.append(self._places.setdefault(place, len(self._places)))

    def _numbers_of_places(self) -> npt.NDArray[np.int32]:
        """Return the number of the place of each image, as one number in memory where all have one place."""
        numbers = np.frombuffer(self._numbers, np.int32)
        if len(numbers) == 1:
            return np.broadcast_to(numbers, (len(self),))
        return np.repeat(numbers, np.diff([*self._changes, len(self)]))


def _joined(keys: PackedStrings, runs: list[range]) -> npt.NDArray[np.int64] | None:
    """Return the order in which whole runs follow each other, as folders do; None where runs lie in each other."""
    runs.sort(key=lambda run: keys.encoded(run[0]))
    if any(keys.encoded(one[-1]) >= keys.encoded(other[0]) for one, other in pairwise(runs)):
        return None
    return np.concatenate([np.arange(run.start, run.stop, dtype=np.int64) for run in runs])


def _refuse_twins(one: ImageFile | LostImage, other: ImageFile | LostImage) -> NoReturn:
    first, second = redacted(one.address), redacted(other.address)
    raise SourceError(f"{first} and {second}: both would have the key {one.key}; give one of them")
