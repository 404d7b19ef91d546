"""What a code tells of its neighbour: mutual information, conditional entropy, and what a coder makes of it.

With few pairs a code the plug-in figures promise far too much: 600 thousand pairs of 64 thousand codes all differ, and
seem to tell everything. Hence the code length beside them, which can be reached: a coder that starts with p(y | x) =
p(y) and learns each code's followers as it goes, n(x, y) and n(x) being what it has seen,

    p(y | x) = (n(x, y) + c p(y)) / (n(x) + c)

with the c that serves best (MacKay & Peto, 1995, "A hierarchical Dirichlet language model", equation 15).
"""

# Axes: K codes, m different pairs, C contexts x.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imtok.analysis.pairs import Keys, PairTable, run_starts
from imtok.analysis.sampling import Sampling
from imtok.analysis.statistics import Neighbours
from imtok.entropy import (
    Counts,
    Floats,
    coded_bits,
    corrected_entropy_bits,
    entropy_bits,
    log_rising,
    miller_bits,
)

_LN2 = math.log(2)
_STRENGTHS = 4.0 ** np.arange(12)  # values of c that are tried
_BLOCK = 2**19  # pairs at once: what is computed of them stays in the cache
_TRIED = 2**17  # different pairs on which they are tried


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


@dataclass(frozen=True)
class _Found:
    """The figures of one codebook in one direction."""

    pairs: int
    distinct: int
    contexts: float  # share of the codes that occur
    entropy: float
    corrected: float
    left: float  # of y where x is known
    left_corrected: float
    coded: float


def neighbours(tables: Sequence[PairTable], counts: Counts, images: int, sampling: Sampling) -> Neighbours | None:
    """The figures of one direction: a table and the counts of all codes, (Q, K), for each codebook.

    Where not all pairs were counted, n(y) is taken of all codes. None where there is not one pair.
    """
    found = [_figures(table, row, sampling.all_pairs) for table, row in zip(tables, counts, strict=True)]
    each = [statistics for statistics in found if statistics is not None]
    if not each:
        return None

    def mean(name: str) -> float:
        return float(sum(getattr(statistics, name) for statistics in each) / len(each))

    return Neighbours(
        images=-(-images // sampling.pair_stride),
        pairs=sum(statistics.pairs for statistics in each),
        distinct=sum(statistics.distinct for statistics in each),
        contexts_share=1.0 if sampling.paired is None else mean("contexts"),
        mutual_information_bits=mean("entropy") - mean("left"),
        mutual_information_corrected_bits=mean("corrected") - mean("left_corrected"),
        conditional_entropy_bits=mean("left"),
        conditional_entropy_corrected_bits=mean("left_corrected"),
        coded_bits=mean("coded"),
    )


def _figures(table: PairTable, counts: Counts, exact: bool) -> _Found | None:
    pairs = _opened(table, counts, exact)
    if not len(pairs.counts):
        return None
    entropy, corrected = entropy_bits(pairs.marginal), corrected_entropy_bits(pairs.marginal)
    left = min(_conditional_entropy(pairs), entropy)
    return _Found(
        pairs=pairs.total,
        distinct=len(pairs.counts),
        contexts=len(pairs.starts) / int(np.count_nonzero(counts)),
        entropy=entropy,
        corrected=corrected,
        left=left,
        left_corrected=min(left + _bias(pairs), corrected),
        coded=_coded_bits(pairs),
    )


def _opened(table: PairTable, counts: Counts, exact: bool) -> _Pairs:
    keys, numbers = table.entries()
    size = table.dtype.type(table.codebook_size)
    starts, second = run_starts(keys // size), keys % size
    marginal = np.bincount(second, numbers, table.codebook_size).astype(np.int64) if exact else counts
    return _Pairs(starts, second, numbers, marginal)


def _conditional_entropy(pairs: _Pairs) -> float:
    """H(Y | X) = H(X, Y) - H(X)."""
    contexts = np.add.reduceat(pairs.counts, pairs.starts)
    return max(0.0, entropy_bits(pairs.counts) - entropy_bits(contexts))


def _bias(pairs: _Pairs) -> float:
    """That of H(X, Y) less that of H(X)."""
    return miller_bits(len(pairs.counts), pairs.total) - miller_bits(len(pairs.starts), pairs.total)


def _coded_bits(pairs: _Pairs) -> float:
    """Bits a pair to code y knowing x, to learn p(y) beforehand, and to say which c."""
    everything = int(pairs.marginal.sum())
    prior = pairs.marginal / everything  # (K,)
    tried = _some_contexts(pairs)
    strength = min(_STRENGTHS, key=lambda value: _length(tried, prior, value))
    learning = coded_bits(pairs.marginal) - entropy_bits(pairs.marginal) * everything
    choosing = math.log2(len(_STRENGTHS)) / everything
    return (_length(pairs, prior, strength) / _LN2) / pairs.total + learning / everything + choosing


def _length(pairs: _Pairs, prior: Floats, strength: float) -> float:
    """ln of 1 over the probability that the coder gives all its y."""
    followers = 0.0
    for begin in range(0, len(pairs.counts), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        counts, expected = pairs.counts[block], strength * prior[pairs.second[block]]
        several = counts > 1  # most occur once, and then one logarithm does
        followers += float(np.log(expected[~several]).sum() + log_rising(expected[several], counts[several]).sum())
    totals = np.add.reduceat(pairs.counts, pairs.starts)  # (C,)
    return float(log_rising(strength, totals).sum()) - followers


def _some_contexts(pairs: _Pairs) -> _Pairs:
    """About as many pairs as are tried, of contexts spread over all."""
    if len(pairs.counts) <= _TRIED:
        return pairs
    step = -(-len(pairs.counts) // _TRIED)
    ends = np.append(pairs.starts[1:], len(pairs.counts))
    some = [slice(*span) for span in zip(pairs.starts[::step].tolist(), ends[::step].tolist(), strict=True)]
    starts = np.cumsum([0, *(each.stop - each.start for each in some[:-1])])
    second, counts = (np.concatenate([whole[each] for each in some]) for whole in (pairs.second, pairs.counts))
    return _Pairs(starts, second, counts, pairs.marginal)
