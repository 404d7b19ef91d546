"""A table of how often pairs of codes occur, which holds the pairs that occur and no others."""

# Axes: K codes, n pairs, m different pairs.

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.entropy import Counts

Keys = npt.NDArray[np.unsignedinteger[Any]]

_WAITING = 2**24  # pairs that are gathered before they are sorted: one sort is cheaper than many merges


class PairTable:
    """Pairs (x, y) of codes as keys x K + y, ascending, with their counts."""

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        # Half the bytes sort in half the time.
        self.dtype = np.dtype(np.uint32 if codebook_size**2 <= 2**32 else np.uint64)
        self._keys, self._counts = np.empty(0, self.dtype), np.empty(0, np.int64)
        self._waiting: list[Keys] = []
        self._number_waiting = 0

    def add(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
        """Count the pairs of two arrays of codes of the same shape."""
        keys = first.astype(self.dtype).ravel()
        keys *= self.dtype.type(self.codebook_size)
        keys += second.ravel().astype(self.dtype, copy=False)
        self._wait([keys])

    def add_entries(self, keys: Keys, counts: Counts) -> None:
        """Count what `entries` of another table gave."""
        self._settle()
        self._combine(keys, counts)

    def merge(self, other: PairTable) -> None:
        """Count all that another table has counted."""
        if len(other._keys):
            self.add_entries(other._keys, other._counts)
        self._wait(other._waiting)

    def entries(self) -> tuple[Keys, Counts]:
        """Keys (m,) ascending and how often each occurs, (m,) int64."""
        self._settle()
        return self._keys, self._counts

    def _wait(self, keys: list[Keys]) -> None:
        self._waiting += keys
        self._number_waiting += sum(map(len, keys))
        if self._number_waiting >= max(_WAITING, len(self._keys)):
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate(self._waiting)
        keys.sort()
        self._waiting, self._number_waiting = [], 0
        starts = run_starts(keys)
        self._combine(keys[starts], np.diff(starts, append=len(keys)))

    def _combine(self, keys: Keys, counts: Counts) -> None:
        """Two ascending lists as one; a stable sort finds that they are two runs and merges them."""
        if not len(self._keys):
            self._keys, self._counts = keys, counts
            return
        joined = np.concatenate([self._keys, keys])
        order = np.argsort(joined, kind="stable")
        joined = joined[order]
        starts = run_starts(joined)
        self._counts = np.add.reduceat(np.concatenate([self._counts, counts])[order], starts)
        self._keys = joined[starts]


def run_starts(ascending: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    begins = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=begins[1:])
    return np.flatnonzero(begins)
