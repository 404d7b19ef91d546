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

from imtok.analysis.entropy import (
    Counts,
    Floats,
    coded_bits,
    corrected_entropy_bits,
    entropy_bits,
    log_rising,
)
from imtok.analysis.figures import Neighbours
from imtok.analysis.pairs import Keys, PairTable, run_starts
from imtok.analysis.sampling import Sampling

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


def neighbours(tables: Sequence[PairTable], counts: Counts, images: int, sampling: Sampling) -> Neighbours | None:
    """The figures of one direction: a table and the counts of all codes, (Q, K), for each codebook.

    Where not all pairs were counted, n(y) is taken of all codes. None where there is not one pair.
    """
    exact = sampling.pair_share >= 1 and sampling.pair_stride == 1
    each = [_opened(table, row, exact) for table, row in zip(tables, counts, strict=True)]
    each = [pairs for pairs in each if len(pairs.counts)]
    if not each:
        return None
    whole = [entropy_bits(pairs.marginal) for pairs in each]
    whole_corrected = [corrected_entropy_bits(pairs.marginal) for pairs in each]
    left = [min(_conditional_entropy(pairs), most) for pairs, most in zip(each, whole, strict=True)]
    left_corrected = [
        min(plain + _bias(pairs), most) for plain, pairs, most in zip(left, each, whole_corrected, strict=True)
    ]
    return Neighbours(
        images=-(-images // sampling.pair_stride),
        pairs=sum(pairs.total for pairs in each),
        distinct=sum(len(pairs.counts) for pairs in each),
        contexts_share=sampling.pair_share,
        mutual_information_bits=_mean(whole) - _mean(left),
        mutual_information_corrected_bits=_mean(whole_corrected) - _mean(left_corrected),
        conditional_entropy_bits=_mean(left),
        conditional_entropy_corrected_bits=_mean(left_corrected),
        coded_bits=_mean([_coded_bits(pairs) for pairs in each]),
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
    """Miller's (m - C) / (2 N ln 2): that of H(X, Y) less that of H(X)."""
    return (len(pairs.counts) - len(pairs.starts)) / (2 * pairs.total * _LN2)


def _coded_bits(pairs: _Pairs) -> float:
    """Bits a pair to code y knowing x, and to learn p(y) beforehand."""
    prior = (pairs.marginal + 0.5) / (pairs.marginal.sum() + 0.5 * len(pairs.marginal))  # (K,)
    tried = _some_contexts(pairs)
    strength = min(_STRENGTHS, key=lambda value: _length(tried, prior, value))
    learning = coded_bits(pairs.marginal) - entropy_bits(pairs.marginal) * int(pairs.marginal.sum())
    return (_length(pairs, prior, strength) / _LN2) / pairs.total + learning / int(pairs.marginal.sum())


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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
