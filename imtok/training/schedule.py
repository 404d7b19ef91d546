"""Functions of how far a run has come, in training images seen."""

from __future__ import annotations

import math


def learning_rate(seen: float, images: int, peak: float, warmup: float) -> float:
    """Return the rate: linear from 0 to `peak` over the share `warmup` of the run, then half a cosine down to 0."""
    progress = min(1.0, seen / images)
    if progress < warmup:
        return peak * progress / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def ema_decay(steps: int, decay: float) -> float:
    """Return the decay of the EMA after `steps` steps: small at first, so that the first weights are soon forgotten."""
    return min(decay, (1 + steps) / (10 + steps))
