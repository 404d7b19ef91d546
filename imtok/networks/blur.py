"""Blur before subsampling, so that a discriminator does not see which pixels of a grid were kept (Zhang, 2019).

The filter is binomial in both directions and sums to one. Padding is "same": ceil(side / stride) positions come out,
and where the padding cannot be equal on both sides, the larger half comes after. 1d-tokenizer pads for a filter of
four whatever the filter's size, which is right for its published size alone; here the padding follows the size.
"""

# Axes: B batch, C channels, H x W grid.

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """A fixed filter on each channel, every `stride` positions: of size 3 (1, 2, 1) / 4, of size 4 (1, 3, 3, 1) / 8.

    The border is zero or the grid mirrored about its outermost position; mirroring needs two positions or more.
    """

    def __init__(self, size: int, *, stride: int = 1, border: Literal["zero", "reflect"] = "zero") -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.mode = "constant" if border == "zero" else "reflect"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        channels, height, width = x.shape[1:]
        padding = (*_same_padding(width, self.size, self.stride), *_same_padding(height, self.size, self.stride))
        kernel = binomial_filter(self.size, like=x).expand(channels, 1, self.size, self.size)
        return F.conv2d(F.pad(x, padding, self.mode), kernel, stride=self.stride, groups=channels)


def binomial_filter(size: int, like: Tensor) -> Tensor:
    """Return the filter (1, 1, size, size), its sum 1, in the dtype and on the device of `like`.

    It is made where it is used, since a buffer can be destroyed by a cast or a move of the module. The rows of Pascal's
    triangle follow from each other on the device itself: numbers copied to it from the CPU would wait for it.
    """
    taps = like.new_ones(1)
    for _ in range(size - 1):
        taps = F.pad(taps, (1, 0)) + F.pad(taps, (0, 1))
    taps = taps / 2 ** (size - 1)
    return torch.outer(taps, taps).view(1, 1, size, size)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Padding before and after, for ceil(length / stride) positions of a filter."""
    positions = -(-length // stride)
    total = max((positions - 1) * stride + size - length, 0)
    return total // 2, total - total // 2
