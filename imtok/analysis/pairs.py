"""A sparse table of pairs of codes: it holds the pairs that occur, with their counts."""

# Axes: K codes, n pairs, m different pairs.

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.entropy import Counts

Keys = npt.NDArray[np.unsignedinteger[Any]]

_BUFFERED = 2**24  # pairs that are gathered before they are sorted: one sort is cheaper than many merges


class PairTable:
    """Counts of pairs (x, y) of codes, under ascending keys x K + y."""

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        # Half the bytes sort in half the time.
        self.dtype = np.dtype(np.uint32 if codebook_size**2 <= 2**32 else np.uint64)
        self._keys, self._counts = np.empty(0, self.dtype), np.empty(0, np.int64)
        self._buffer: list[Keys] = []
        self._buffered = 0

    def add(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
        """Count the pairs that two arrays of codes of the same shape form."""
        keys = first.astype(self.dtype).ravel()
        keys *= self.dtype.type(self.codebook_size)
        keys += second.ravel().astype(self.dtype, copy=False)
        self._gather([keys])

    def merge(self, other: PairTable) -> None:
        """Add the counts of another table."""
        if len(other._keys):
            self._flush()
            self._combine(other._keys, other._counts)
        self._gather(other._buffer)

    def entries(self) -> tuple[Keys, Counts]:
        """Return the keys, (m,) ascending, and how often each occurs, (m,) int64."""
        self._flush()
        return self._keys, self._counts

    def _gather(self, keys: list[Keys]) -> None:
        self._buffer += keys
        self._buffered += sum(map(len, keys))
        if self._buffered >= max(_BUFFERED, len(self._keys)):
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        keys = np.concatenate(self._buffer)
        keys.sort()
        self._buffer, self._buffered = [], 0
        starts = run_starts(keys)
        self._combine(keys[starts], np.diff(starts, append=len(keys)))

    def _combine(self, keys: Keys, counts: Counts) -> None:
        """Merge an ascending list into the table; a stable sort finds the two ascending runs and merges them."""
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
    """Return the index where each run of equal values begins: (n,) -> (runs,)."""
    begins = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=begins[1:])
    return np.flatnonzero(begins)
