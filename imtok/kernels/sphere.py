"""Vectors to the unit sphere, with a gradient that stays bounded at the origin."""

# Axes: N vectors, D dimensions.

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST = 1e-4


def unit_rows(rows: Tensor) -> Tensor:
    """Each row at length 1: (N, D) -> (N, D), the same dtype.

    A row shorter than 1e-4 has no direction to speak of and is left as it is, value and gradient. So the gradient,
    which grows as 1 / length, is at most 1e4 times the one that came in; the usual clamp of the length at 1e-12
    sends back 1e12 times as much from a zero row, and after clipping nothing else would learn in that step.
    """
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > _SHORTEST, length, torch.ones_like(length))
