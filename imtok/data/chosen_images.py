"""Some of the images of a packed list, by their positions in it: four bytes an image, and no copy of a key."""

# Axes: N images that are chosen, B images of the whole list.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from imtok.data.containers import SourceImage
from imtok.data.packed_images import PackedImages
from imtok.packed_strings import PackedStrings

_CHUNK = 2**16  # marks that are looked at at once
_BLOCK = 4096  # images that are unpacked at once

_Image = TypeVar("_Image", bound=SourceImage, covariant=True)

Positions = npt.NDArray[np.integer[Any]]


class _ChosenStrings(PackedStrings):
    """Strings of another list by their positions (N,)."""

    def __init__(self, strings: PackedStrings, positions: Positions) -> None:
        super().__init__(strings.data, strings.offsets)
        self._strings, self._positions = strings, positions

    def encoded(self, index: int) -> bytes:
        """Return one string as UTF-8."""
        return self._strings.encoded(int(self._positions[index]))

    def encoded_at(self, indices: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the strings with these indices as UTF-8, best for indices that lie near each other."""
        return self._strings.encoded_at(self._positions[indices].astype(np.int64))

    def __len__(self) -> int:
        return len(self._positions)

    def __reduce__(self) -> tuple[Any, ...]:
        return _ChosenStrings, (self._strings, self._positions)


class ChosenImages(PackedImages[_Image]):
    """Images at some positions (N,) of a packed list, in the order of these."""

    def __init__(self, whole: PackedImages[_Image], positions: Positions) -> None:
        super().__init__(_ChosenStrings(whole.keys, positions), whole.sizes)
        self.whole, self.positions = whole, positions

    @property
    def sizes(self) -> npt.NDArray[np.signedinteger[Any]]:
        """The images' bytes: (N,) int64 or int32, made anew each time."""
        return self._sizes[self.positions]

    def blocks(self) -> Iterator[tuple[list[bytes], list[int]]]:
        """Yield keys as UTF-8, and sizes, of some thousand images at a time, in order."""
        for start in range(0, len(self), _BLOCK):
            some = self.positions[start : start + _BLOCK].astype(np.int64)
            yield self.whole.keys.encoded_at(some), self._sizes[some].tolist()

    def image(self, index: int) -> _Image:
        """Make the image with this index."""
        return self.whole.image(int(self.positions[index]))


def choose(whole: PackedImages[_Image], positions: Positions) -> PackedImages[_Image]:
    """Return the images at these positions (N,): the list itself where they are all of it in order."""
    if len(positions) == len(whole) and bool((positions[1:] > positions[:-1]).all()):
        return whole
    return ChosenImages(whole, positions)


def choose_marked(whole: PackedImages[_Image], marks: npt.NDArray[np.bool_]) -> PackedImages[_Image]:
    """Return the images whose marks (B,) are set, in order."""
    positions = np.empty(np.count_nonzero(marks), np.uint32)
    filled = 0
    for start in range(0, len(marks), _CHUNK):  # all positions at once would be found as int64
        some = np.flatnonzero(marks[start : start + _CHUNK])
        positions[filled : filled + len(some)] = some + start
        filled += len(some)
    return choose(whole, positions)


def others(whole: PackedImages[_Image], chosen: PackedImages[_Image]) -> PackedImages[_Image]:
    """Return the images of a list that are not among those that `choose` returned for it, in order."""
    left = np.ones(len(whole), np.bool_)
    left[chosen.positions if isinstance(chosen, ChosenImages) else slice(len(chosen))] = False
    return choose_marked(whole, left)
