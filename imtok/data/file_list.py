"""The list of images that are files of their own, packed and in the byte order of their keys.

Most addresses are a folder and the key below it, so the folder is kept once. Signatures of URLs, and addresses that
are another than the key, such as of a name that is not UTF-8, are packed beside the keys. Ten million images take 8
bytes each, and of their keys what neighbours do not share.
"""

# Axes: N images, R runs of images that follow each other and have one way to their addresses.

from __future__ import annotations

import itertools
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from imtok.data.addresses import redacted
from imtok.data.chosen_images import ChosenImages
from imtok.data.containers import ImageFile, LostImage, as_text
from imtok.data.packed_images import PackedImages
from imtok.errors import SourceError
from imtok.front_coded import FrontCodedStrings, GrowingFrontCoded
from imtok.packed_numbers import GrowingNumbers
from imtok.packed_strings import PackedStrings
from imtok.sorted_runs import in_sorted_blocks

_MOST_RUNS = 2**16  # in order, as folders are; more are sorted one by one


class Place(NamedTuple):
    """The place that images come from: the beginnings of their keys and addresses, before the part that both share."""

    prefix: str
    folder: str


class _Way(NamedTuple):
    """How addresses are made from keys: from the key alone, from the key and an ending, or each stored whole."""

    place: Place
    own: Literal["", "end", "all"] = ""


_OWN_ADDRESSES = _Way(Place("", ""), "all")


class _Addresses(NamedTuple):
    """The ways of R runs: their first images, numbers in `ways`, and places of their first ones in `own`."""

    starts: Sequence[int]
    numbers: Sequence[int]
    first_own: Sequence[int]
    ways: Sequence[_Way]
    own: FrontCodedStrings

    def of(self, index: int, key: str) -> str:
        """Return the address of an image."""
        run = bisect_right(self.starts, index) - 1
        (prefix, folder), own = self.ways[self.numbers[run]]
        address = "" if own == "all" else folder + key[len(prefix) :]
        if own:
            address += _text(self.own.encoded(self.first_own[run] + index - self.starts[run]))
        return address


class FileList(PackedImages[ImageFile | LostImage]):
    """Images by position; `odd` are images that are objects."""

    def __init__(
        self,
        keys: PackedStrings,
        sizes: npt.NDArray[np.signedinteger[Any]],
        addresses: _Addresses,
        odd: Mapping[int, ImageFile | LostImage],
    ) -> None:
        super().__init__(keys, sizes)
        self._addresses, self._odd = addresses, odd

    def image(self, index: int) -> ImageFile | LostImage:
        """Make the image with this index."""
        if index in self._odd:
            return self._odd[index]
        key = self.keys[index]
        return ImageFile(key, self._addresses.of(index, key), int(self.sizes[index]))


class GrowingFileList:
    """Images that are found one after the other, in any order."""

    def __init__(self) -> None:
        self._keys, self._own = GrowingFrontCoded(), GrowingFrontCoded()
        self._sizes = GrowingNumbers("i")  # signed, as UNKNOWN_SIZE is negative
        self._ways: dict[_Way, int] = {}
        self._way: _Way | None = None  # of the last image
        self._starts, self._first_own = array("q"), array("q")  # of runs that have one way
        self._numbers = array("i")  # of these ways
        self._odd: dict[int, ImageFile | LostImage] = {}
        self._last = b""
        self._ascents = GrowingNumbers("I")  # first positions of runs whose keys are in order

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, place: Place, name: str, address: str, size: int) -> None:
        """Add a file whose key is `name` after the prefix of its place."""
        key, shared = as_text(name), place.folder + name
        if key != name or not address.startswith(shared):
            way, own = _OWN_ADDRESSES, address
        else:
            way, own = _Way(place, "" if address == shared else "end"), address[len(shared) :]
        self._add((place.prefix + key).encode(), size, way)
        if own:
            self._own.add(_encoded(own))

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
        keys = [f"{prefix}{name}".encode() for name in names]
        self._note(keys[0], _Way(place))
        self._keys.extend(keys)
        self._sizes.extend(np.array(sizes, np.int64))
        self._last = keys[-1]

    def add_object(self, image: LostImage) -> None:
        """Add an image that stays an object."""
        self._odd[len(self)] = image
        self._add(image.key.encode(), image.size, _Way(self._way.place if self._way else Place("", "")))

    def cut(self, count: int) -> list[ImageFile | LostImage]:
        """Keep the first `count` images alone; return those of the others that are objects."""
        cut = {index: image for index, image in self._odd.items() if index >= count}
        for index in cut:
            del self._odd[index]
        self._keys.cut(count)
        self._sizes.cut(count)
        self._ascents.cut(bisect_left(self._ascents, count))
        kept = bisect_left(self._starts, count)
        self._way = list(self._ways)[self._numbers[kept - 1]] if kept else None
        own = self._first_own[kept - 1] if kept else 0
        self._own.cut(own + (count - self._starts[kept - 1] if self._way and self._way.own else 0))
        del self._starts[kept:], self._first_own[kept:], self._numbers[kept:]
        self._last = self._keys.encoded(count - 1) if count else b""
        return list(cut.values())

    def sorted(self) -> PackedImages[ImageFile | LostImage]:
        """Return the images in order, after which no more can be added; raises SourceError where two have one key."""
        keys, ways = self._keys.packed(), tuple(self._ways)
        addresses = _Addresses(self._starts, self._numbers, self._first_own, ways, self._own.packed())
        found = FileList(keys, self._sizes.packed(), addresses, self._odd)
        if len(self._ascents) <= 1:
            return found
        order = None
        if len(self._ascents) <= _MOST_RUNS:
            order = _joined(keys, [range(*pair) for pair in pairwise([*self._ascents.packed().tolist(), len(keys)])])
        return _SortedFiles(found, _order(found) if order is None else order)

    def _add(self, key: bytes, size: int, way: _Way) -> None:
        self._note(key, way)
        self._last = key
        self._keys.add(key)
        self._sizes.append(size)

    def _note(self, key: bytes, way: _Way) -> None:
        """Begin a new run where a key is not in order, and one where the way is another."""
        if key <= self._last or not self._ascents:
            self._ascents.append(len(self))
        if way != self._way:
            self._way = way
            self._starts.append(len(self))
            self._first_own.append(len(self._own))
            self._numbers.append(self._ways.setdefault(way, len(self._ways)))


class _SortedFiles(ChosenImages[ImageFile | LostImage]):
    """A list in another order (N,)."""

    def __init__(self, files: FileList, order: npt.NDArray[np.uint32]) -> None:
        super().__init__(files, order)
        self._sorted_sizes = files.sizes[order]

    @property
    def sizes(self) -> npt.NDArray[np.signedinteger[Any]]:
        """The images' bytes: (N,) int64 or int32."""
        return self._sorted_sizes


def _joined(keys: PackedStrings, runs: list[range]) -> npt.NDArray[np.uint32] | None:
    """Return the order in which whole runs follow each other, as folders do; None where runs lie in each other."""
    runs.sort(key=lambda run: keys.encoded(run[0]))
    if any(keys.encoded(one[-1]) >= keys.encoded(other[0]) for one, other in pairwise(runs)):
        return None
    return np.concatenate([np.arange(run.start, run.stop, dtype=np.uint32) for run in runs])


def _order(files: FileList) -> npt.NDArray[np.uint32]:
    """Return the order of keys; raises SourceError where two are the same."""
    order = GrowingNumbers("I")
    encoded = (key for keys, _ in files.blocks() for key in keys)
    last = None
    for pairs in in_sorted_blocks(zip(encoded, itertools.count())):
        for one, other in pairwise(pairs if last is None else [last, *pairs]):
            if one[0] == other[0]:
                _refuse_twins(files.image(one[1]), files.image(other[1]))
        last = pairs[-1]
        order.extend(np.array([position for _, position in pairs], np.int64))
    return order.packed()


def _refuse_twins(one: ImageFile | LostImage, other: ImageFile | LostImage) -> NoReturn:
    first, second = redacted(one.address), redacted(other.address)
    raise SourceError(f"{first} and {second}: both would have the key {one.key}; give one of them")


def _encoded(address: str) -> bytes:
    return address.encode("utf-8", "surrogatepass")


def _text(address: bytes) -> str:
    return address.decode("utf-8", "surrogatepass")
