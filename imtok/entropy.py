"""Entropies, code lengths and other statistics of a list of counts.

The plug-in entropy is too low where counts are few; Miller's correction removes the first term of that bias. A code
length has no such bias: an adaptive coder starts with a Dirichlet prior and learns from the tokens it has coded. Its
code length depends on the counts alone, not on their order, so a table of counts is enough.
"""

# Axes: K codes, n_k occurrences of code k, N = sum n_k, m codes that occur.

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LN2 = math.log(2)
_HALF_LN_2PI = math.log(2 * math.pi) / 2
_SERIES_FROM = 8  # from here on seven terms of Stirling's series leave an error below 1e-15
_STIRLING = (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)  # the last term first
_RANKS = 64  # points of the fit of Zipf's line; with all ranks the many rare codes would decide it
# Pseudo-counts of the prior. The coder tries all and sends once which one is best, in a few bits.
_PRIORS = 2.0 ** np.arange(-10, 2)


def entropy_bits(counts: Counts) -> float:
    """Return -sum p_k log2 p_k with p_k = n_k / N, in bits, at most log2 K (Shannon, 1948); 0 for no tokens."""
    total = int(counts.sum())
    if total == 0:
        return 0.0
    several = counts[counts > 1]  # n log2 n is 0 for 1, which most counts of pairs are
    bits = math.log2(total) - float((several * np.log2(several)).sum()) / total
    return min(max(0.0, bits), math.log2(len(counts)))


def corrected_entropy_bits(counts: Counts) -> float:
    """Return `entropy_bits` + (m - 1) / (2 N ln 2), at most log2 K (Miller, 1955)."""
    total = int(counts.sum())
    if total == 0:
        return 0.0
    return min(math.log2(len(counts)), entropy_bits(counts) + miller_bits(int(np.count_nonzero(counts)), total))


def miller_bits(different: float, total: int) -> float:
    """Return the bias of the plug-in entropy to first order: (m - 1) / (2 N ln 2) bits too low (Miller, 1955)."""
    return (different - 1) / (2 * total * _LN2)


def expected_used(counts: Counts) -> float:
    """Estimate how many codes more tokens would show, a lower bound (Chao, 1984).

    With f1 codes seen once and f2 seen twice it is m + f1 (f1 - 1) / (2 (f2 + 1)), at most K.
    """
    once, twice = int(np.count_nonzero(counts == 1)), int(np.count_nonzero(counts == 2))
    unseen = once * (once - 1) / (2 * (twice + 1))
    return min(float(len(counts)), int(np.count_nonzero(counts)) + unseen)


def gini(counts: Counts) -> float:
    """Return Gini's coefficient over all K codes: 0 for equal counts or no tokens, 1 - 1/K where one code has all."""
    total, size = int(counts.sum()), len(counts)
    if total == 0:
        return 0.0
    ranks = np.arange(1, size + 1)
    return max(0.0, float((2 * ranks - size - 1) @ np.sort(counts) / (size * total)))


def zipf_slope(counts: Counts) -> float | None:
    """Return the slope of log n over log rank, the most frequent code first (Zipf, 1949).

    The line is fitted by least squares at 64 ranks evenly spaced in the logarithm. None for fewer than three codes.
    """
    ranked = np.sort(counts[counts > 0])[::-1]
    if len(ranked) < 3:
        return None
    ranks = log_spaced(len(ranked), _RANKS)
    horizontal = np.log(ranks) - np.log(ranks).mean()
    return float(horizontal @ np.log(ranked[ranks - 1]) / (horizontal @ horizontal))


def log_spaced(last: int, count: int) -> Counts:
    """Return at most `count` different integers from 1 to `last`, evenly spaced in the logarithm."""
    return np.unique(np.geomspace(1, last, count).round().astype(np.int64))


def coded_bits(counts: Counts) -> float:
    """Return the bits that an adaptive coder without context needs for all N tokens, learning included.

    Every code starts with the same pseudo-count, the best of 12 (1/2 is that of Krichevsky & Trofimov, 1981). 0 for no
    tokens.
    """
    total = int(counts.sum())
    if total == 0:
        return 0.0
    seen, number = np.unique(counts[counts > 0], return_counts=True)
    lengths = [
        float(log_rising(len(counts) * prior, total) - number @ log_rising(prior, seen)) / _LN2 for prior in _PRIORS
    ]
    return min(lengths) + math.log2(len(_PRIORS))


def log_rising(start: float | Floats, steps: int | npt.NDArray[Any]) -> Floats:
    """Return ln of start (start + 1) ... (start + steps - 1), for start > 0."""
    starts = np.asarray(start, np.float64)
    return _log_gamma(starts + steps) - _log_gamma(starts)


def _log_gamma(values: Floats) -> Floats:
    """Return ln of the gamma function, for values > 0, by the series of Stirling; PyTorch has it, but loads slowly."""
    points = np.atleast_1d(values)
    small = points < _SERIES_FROM
    shifted = points + _SERIES_FROM * small
    square = 1 / (shifted * shifted)
    series = np.zeros_like(shifted)
    for coefficient in _STIRLING:
        series *= square
        series += coefficient
    found = (shifted - 0.5) * np.log(shifted) - shifted + (_HALF_LN_2PI + series / shifted)
    start = points[small]
    found[small] -= np.log(math.prod(start + step for step in range(_SERIES_FROM)))  # gamma(x + 1) = x gamma(x)
    return found.reshape(np.shape(values))
