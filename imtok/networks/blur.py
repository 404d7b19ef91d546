"""Blur before subsampling, so that a discriminator does not see which pixels of a grid were kept (Zhang, 2019).

The filter is binomial in both directions and sums to one. Padding is "same": ceil(side / stride) positions come out,
and where the padding cannot be equal on both sides, the larger half comes after. 1d-tokenizer pads for a filter of
four whatever the filter's size, which is right for its published size alone; here the padding follows the size.
"""

# Axes: B batch, C channels, H x W grid.

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """A fixed filter on each channel, every `stride` positions: of size 3 (1, 2, 1) / 4, of size 4 (1, 3, 3, 1) / 8.

    The border is zero or the grid mirrored about its outermost position; mirroring needs two positions or more.
    """

    kernel: Tensor  # (1, 1, size, size), sum 1

    def __init__(self, size: int, *, stride: int = 1, border: Literal["zero", "reflect"] = "zero") -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.mode = "constant" if border == "zero" else "reflect"
        taps = torch.tensor([math.comb(size - 1, tap) for tap in range(size)]) / 2 ** (size - 1)
        self.register_buffer("kernel", torch.outer(taps, taps).view(1, 1, size, size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        channels, height, width = x.shape[1:]
        padding = (*_same_padding(width, self.size, self.stride), *_same_padding(height, self.size, self.stride))
        kernel = self.kernel.expand(channels, 1, self.size, self.size)
        return F.conv2d(F.pad(x, padding, self.mode), kernel, stride=self.stride, groups=channels)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Padding before and after, for ceil(length / stride) positions of a filter."""
    positions = -(-length // stride)
    total = max((positions - 1) * stride + size - length, 0)
    return total // 2, total - total // 2
