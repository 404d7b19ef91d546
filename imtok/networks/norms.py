"""Group norm (Wu & He, 2018, "Group Normalization") in the memory order that the processor is fast in; BatchNorm.

torch's kernel for channels-last tensors on a CPU takes sixteen times as long in bfloat16 as its kernel for contiguous
ones: 10.6 ms and 0.7 ms, forward and backward, for 16 x 64 x 24 x 24 numbers, one core. In float32 it takes four times
as long. Another order there would gain a percent of a training step and change its last bits, so float32 stays.
"""

# Axes: B batch, C channels, H x W grid.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.recomputation import is_recomputed


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm; bfloat16 on a CPU is normalised in contiguous memory."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """(B, C, H, W) -> the same shape, dtype and memory order; differentiable as often as torch's."""
        if not is_slow(input):
            return super().forward(input)
        last = input.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        return super().forward(input.contiguous()).contiguous(memory_format=order)


class BatchNorm(nn.BatchNorm2d):
    """torch's BatchNorm, whose averages take in each batch once, though gradient checkpointing sees it twice."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """(B, C, H, W) -> the same shape."""
        if self.training and is_recomputed():
            mean, variance = self.running_mean, self.running_var
            copies = (None if mean is None else mean.clone(), None if variance is None else variance.clone())
            return F.batch_norm(input, *copies, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(input)


def is_slow(x: Tensor) -> bool:
    """Return whether torch may take its slow kernel for (B, C, H, W); a compiled graph has a kernel of its own."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.bfloat16:
        return False
    return x.ndim == 4 and not x.is_contiguous()


def in_fast_order(x: Tensor) -> Tensor:
    """Return latents (B, C, H, W) contiguous where a CPU computes in bfloat16, else as they are.

    A quantizer gives latents channels-last, and the memory order of a convolution's input is that of its result. So
    without it a whole decoder runs channels-last, beside an encoder that does not.
    """
    if x.device.type != "cpu":
        return x
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return x.contiguous() if autocast == torch.bfloat16 else x
