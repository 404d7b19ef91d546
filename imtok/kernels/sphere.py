"""Vectors to the unit sphere, with a gradient that stays bounded at the origin."""

# Axes: N vectors, D dimensions.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SHORTEST = 1e-4


def unit_rows(rows: Tensor) -> Tensor:
    """Each row at length 1, and a zero row at zero: (N, D) -> (N, D), the same dtype.

    The true gradient grows as 1 / length: from a zero row, with its length clamped at 1e-12 as is usual, 1e12 times
    what came in is sent back, and once clipped nothing else would learn in that step. A row shorter than 1e-4 has no
    direction to speak of and takes the gradient as it is; so at most 1e4 times as much is sent back.
    """
    length = rows.norm(dim=1, keepdim=True)
    short = length <= _SHORTEST
    long_rows = rows / torch.where(short, torch.ones_like(length), length)
    return torch.where(short, F.normalize(rows.detach(), dim=1) + (rows - rows.detach()), long_rows)
