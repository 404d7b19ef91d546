"""Strings in memory whose neighbours begin alike, as keys in order do: each block has its common beginning once.

Ten million keys of one folder take a few bytes each and four for their offsets, however long the folder's name is.
"""

# Axes: N strings, B blocks.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.packed_numbers import GrowingNumbers
from imtok.packed_strings import GrowingStrings, PackedStrings

_BLOCK = 64  # strings


class FrontCodedStrings(PackedStrings):
    """N strings: `beginnings` B common ones, and `rests` N of what follows them."""

    def __init__(self, beginnings: Sequence[bytes], rests: PackedStrings) -> None:
        super().__init__(rests.data, rests.offsets)
        self._beginnings, self._rests = beginnings, rests

    def encoded(self, index: int) -> bytes:
        """Return one string as UTF-8."""
        return self._beginnings[index // _BLOCK] + self._rests.encoded(index)

    def encoded_at(self, indices: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the strings with these indices as UTF-8, best for indices that lie near each other."""
        pairs = zip((indices // _BLOCK).tolist(), self._rests.encoded_at(indices), strict=True)
        return [self._beginnings[block] + rest for block, rest in pairs]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrontCodedStrings, (self._beginnings, self._rests)


class GrowingFrontCoded:
    """Strings that are packed one after the other as they come, in any order."""

    def __init__(self) -> None:
        self._beginnings: list[bytes] = []
        self._rests = GrowingStrings(offsets=GrowingNumbers("I"))
        self._open: list[bytes] = []  # the last strings, too few for a block

    def add(self, string: bytes) -> None:
        """Add a string as UTF-8."""
        self._open.append(string)
        if len(self._open) == _BLOCK:
            self._close(self._open)
            self._open = []

    def extend(self, strings: Sequence[bytes]) -> None:
        """Add strings as UTF-8."""
        self._open += strings
        whole = len(self._open) // _BLOCK * _BLOCK
        for start in range(0, whole, _BLOCK):
            self._close(self._open[start : start + _BLOCK])
        del self._open[:whole]

    def cut(self, count: int) -> None:
        """Keep the first `count` strings alone."""
        closed = len(self._rests)
        if count >= closed:
            del self._open[count - closed :]
            return
        blocks = count // _BLOCK
        self._open = [self.encoded(index) for index in range(blocks * _BLOCK, count)]
        self._rests.cut(blocks * _BLOCK)
        del self._beginnings[blocks:]

    def encoded(self, index: int) -> bytes:
        """Return one string as UTF-8."""
        if index >= len(self._rests):
            return self._open[index - len(self._rests)]
        return self._beginnings[index // _BLOCK] + self._rests.encoded(index)

    def __len__(self) -> int:
        return len(self._rests) + len(self._open)

    def packed(self) -> FrontCodedStrings:
        """Return the strings so far, without a copy: no more can be added."""
        if self._open:
            self._close(self._open)
            self._open = []
        return FrontCodedStrings(self._beginnings, self._rests.packed())

    def _close(self, block: list[bytes]) -> None:
        beginning = _common_beginning(min(block), max(block))
        self._beginnings.append(beginning)
        self._rests.extend([string[len(beginning) :] for string in block])


def _common_beginning(one: bytes, other: bytes) -> bytes:
    size = 0
    while size < min(len(one), len(other)) and one[size] == other[size]:
        size += 1
    return one[:size]
