"""Building blocks of the convolutional autoencoder (Esser et al., 2021, "Taming Transformers")."""

# Axes: B batch, C channels, H x W grid.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.norms import GroupNorm


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the published 32 groups, or as many as leave four channels each."""
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0 and (channels // g >= 4 or g == 1))
    return GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input: (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(hidden)))
        return out


class Attention(nn.Module):
    """Single-head self-attention over all grid positions, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, 3, channels, height * width).transpose(2, 3)  # (B, 3, HW, C)
        if torch.compiler.is_exporting():  # the translation to ONNX knows attention with an axis of heads alone
            qkv = qkv.unsqueeze(2)
        mixed = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2]).flatten(0, -3)  # (B, HW, C)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(batch, channels, height, width))
        return out


class Downsample(nn.Module):
    """Halve the grid with a strided convolution and change the channels."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/2, W/2); padded right and below only, as in the published networks."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double the grid by repeating pixels, then a convolution that changes the channels."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out
