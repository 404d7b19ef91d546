"""Neighbouring codes: mutual information, conditional entropy, and the bits of a coder that knows the neighbour.

Where pairs are few, the plug-in estimates promise far too much: 600 thousand pairs of 64 thousand codes all differ, so
that one code seems to determine the next. The code length beside them can be reached. Its coder starts with p(y | x) =
p(y) and learns from the pairs it has coded, n(x, y) of them and n(x) with context x:

    p(y | x) = (n(x, y) + c p(y)) / (n(x) + c)

with the best c (MacKay & Peto, 1995, "A hierarchical Dirichlet language model", equation 15).
"""

# Axes: K codes, n pairs, m different pairs, C contexts x.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.analysis.sampling import Sampling
from imtok.analysis.statistics import Neighbours
from imtok.entropy import Counts, Floats, coded_bits, corrected_entropy_bits, entropy_bits, log_rising, miller_bits

Keys = npt.NDArray[np.unsignedinteger[Any]]

_LN2 = math.log(2)
_BUFFERED = 2**24  # pairs that are gathered before they are sorted: one sort is cheaper than many merges
_STRENGTHS = 4.0 ** np.arange(12)  # values of c that are tried
_TRIED = 2**17  # different pairs on which they are tried
_BLOCK = 2**19  # pairs at once, so that intermediate results stay in the cache


class PairTable:
    """A sparse table: counts of the pairs (x, y) of codes that occur, under ascending keys x K + y."""

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


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The pairs of one codebook in one direction."""

    starts: Counts  # (C,) where each context's pairs begin
    second: Keys  # (m,) y
    counts: Counts  # (m,) n(x, y)
    marginal: Counts  # (K,) n(y)

    @property
    def total(self) -> int:
        """N, all pairs."""
        return int(self.counts.sum())


def neighbours(tables: Sequence[PairTable], counts: Counts, images: int, sampling: Sampling) -> Neighbours | None:
    """Measure one direction, from a table of pairs and the counts of all codes, (Q, K), for each codebook.

    Where not all pairs were counted, n(y) is taken from the counts of all codes. Returns None where there is no pair.
    """
    opened = [_open(table, row, sampling.all_pairs) for table, row in zip(tables, counts, strict=True)]
    found = [_measure(pairs, row) for pairs, row in zip(opened, counts, strict=True) if len(pairs.counts)]
    if not found:
        return None
    means = {name: float(sum(each[name] for each in found) / len(found)) for name in found[0]}
    return Neighbours(
        images=-(-images // sampling.pair_stride),
        pairs=sum(pairs.total for pairs in opened),
        distinct=sum(len(pairs.counts) for pairs in opened),
        contexts_share=1.0 if sampling.paired is None else means["contexts"],
        mutual_information_bits=means["entropy"] - means["conditional"],
        mutual_information_corrected_bits=means["corrected"] - means["conditional_corrected"],
        conditional_entropy_bits=means["conditional"],
        conditional_entropy_corrected_bits=means["conditional_corrected"],
        coded_bits=means["coded"],
    )


def _open(table: PairTable, counts: Counts, exact: bool) -> _Pairs:
    keys, numbers = table.entries()
    size = table.dtype.type(table.codebook_size)
    starts, second = run_starts(keys // size), keys % size
    marginal = np.bincount(second, numbers, table.codebook_size).astype(np.int64) if exact else counts
    return _Pairs(starts, second, numbers, marginal)


def _measure(pairs: _Pairs, counts: Counts) -> dict[str, float]:
    """Return the statistics of one codebook: contexts as a share of the codes that occur, the others in bits."""
    entropy, corrected = entropy_bits(pairs.marginal), corrected_entropy_bits(pairs.marginal)
    contexts = np.add.reduceat(pairs.counts, pairs.starts)
    conditional = min(max(0.0, entropy_bits(pairs.counts) - entropy_bits(contexts)), entropy)  # H(X, Y) - H(X)
    bias = miller_bits(len(pairs.counts), pairs.total) - miller_bits(len(pairs.starts), pairs.total)
    return {
        "contexts": len(pairs.starts) / int(np.count_nonzero(counts)),
        "entropy": entropy,
        "corrected": corrected,
        "conditional": conditional,
        "conditional_corrected": min(conditional + bias, corrected),
        "coded": _coded_bits(pairs),
    }


def _coded_bits(pairs: _Pairs) -> float:
    """Return the bits a pair to code y where x is known, to learn p(y) before, and to name c."""
    everything = int(pairs.marginal.sum())
    prior = pairs.marginal / everything  # (K,)
    tried = _some_contexts(pairs)
    strength = min(_STRENGTHS, key=lambda value: _length(tried, prior, value))
    learning = coded_bits(pairs.marginal) - entropy_bits(pairs.marginal) * everything
    choosing = math.log2(len(_STRENGTHS)) / everything
    return (_length(pairs, prior, strength) / _LN2) / pairs.total + learning / everything + choosing


def _length(pairs: _Pairs, prior: Floats, strength: float) -> float:
    """Return -ln of the probability that the coder assigns to all y."""
    followers = 0.0
    for begin in range(0, len(pairs.counts), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        counts, expected = pairs.counts[block], strength * prior[pairs.second[block]]
        several = counts > 1  # most pairs occur once, which takes one logarithm
        followers += float(np.log(expected[~several]).sum() + log_rising(expected[several], counts[several]).sum())
    totals = np.add.reduceat(pairs.counts, pairs.starts)  # (C,)
    return float(log_rising(strength, totals).sum()) - followers


def _some_contexts(pairs: _Pairs) -> _Pairs:
    """Return the pairs of evenly spaced contexts, about as many as are tried."""
    if len(pairs.counts) <= _TRIED:
        return pairs
    step = -(-len(pairs.counts) // _TRIED)
    ends = np.append(pairs.starts[1:], len(pairs.counts))
    some = [slice(*span) for span in zip(pairs.starts[::step].tolist(), ends[::step].tolist(), strict=True)]
    starts = np.cumsum([0, *(each.stop - each.start for each in some[:-1])])
    second, counts = (np.concatenate([whole[each] for each in some]) for whole in (pairs.second, pairs.counts))
    return _Pairs(starts, second, counts, pairs.marginal)
