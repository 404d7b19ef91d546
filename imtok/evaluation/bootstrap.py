"""Bootstrap intervals of means over images (Efron, 1979): how far a metric would move on other images of the same kind.

The images are drawn again from themselves, with replacement and as many as there are; the mean is taken of each such
draw. The interval is that between two percentiles of those means. It says nothing about a metric that is no mean over
images, such as FID.
"""

# Axes: N images.

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000


class Interval(NamedTuple):
    """The lower and the upper end of an interval, both part of it."""

    low: float
    high: float


def interval_of_mean(
    values: npt.NDArray[np.floating[Any]], *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile interval of the mean of values (N,), at least one, in their order.

    The draws depend on `seed` and on N alone: the same values in the same order give the same interval to the bit, and
    two tokenizers measured on the same images are drawn alike.
    """
    random = np.random.default_rng(seed)
    drawn = (values[random.integers(0, len(values), len(values))] for _ in range(resamples))
    means = np.array([sample.mean() for sample in drawn])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
