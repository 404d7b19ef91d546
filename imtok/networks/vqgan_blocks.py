"""Building blocks of VQGAN's encoder and decoder, with the options of the networks that descend from it.

Facts from the published code: CompVis/taming-transformers (`taming/modules/diffusionmodules/model.py`),
bytedance/1d-tokenizer (`modeling/modules/maskgit_vqgan.py`), TencentARC/SEED-Voken
(`src/Open_MAGVIT2/modules/diffusionmodules/improved_model.py`).
"""

# Axes: B batch, C channels, H x W grid, E channels of a code.

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.blocks import Downsample, Upsample
from imtok.networks.norms import GroupNorm
from imtok.networks.vqgan_config import VQGANConfig


def group_norm(channels: int, config: VQGANConfig) -> nn.GroupNorm:
    """Build the group norm that a configuration asks for."""
    return GroupNorm(config.norm_groups, channels, eps=config.norm_eps)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to a shortcut: (B, C, H, W) -> (B, C', H, W).

    Where the width changes, the shortcut is a 1 x 1 convolution. MaskGIT's reads the second convolution's output, so
    that the block's input is dropped.
    """

    def __init__(self, channels: int, out_channels: int, config: VQGANConfig, code_channels: int | None = None) -> None:
        super().__init__()
        self.norm1 = norm(channels, config, code_channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=config.bias)
        self.norm2 = norm(out_channels, config, code_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=config.bias)
        self.reads_output = config.shortcut == "output"
        self.shortcut: nn.Conv2d | None = None
        if channels != out_channels:
            read = out_channels if self.reads_output else channels
            self.shortcut = nn.Conv2d(read, out_channels, 1, bias=config.bias)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and codes (B, E, h, w) for a spatial norm -> (B, C', H, W)."""
        hidden: Tensor = self.conv1(F.silu(normed(self.norm1, x, codes)))
        hidden = self.conv2(F.silu(normed(self.norm2, hidden, codes)))
        kept: Tensor = x
        if self.shortcut is not None:
            kept = self.shortcut(hidden if self.reads_output else x)
        return kept + hidden


class Attention(nn.Module):
    """Single-head self-attention over all grid positions, added to the input."""

    def __init__(self, channels: int, config: VQGANConfig, code_channels: int | None = None) -> None:
        super().__init__()
        self.norm = norm(channels, config, code_channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and codes (B, E, h, w) for a spatial norm -> (B, C, H, W)."""
        read = normed(self.norm, x, codes)
        query, key, value = (
            layer(read).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v)
        )  # (B, 1, HW, C) each
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))
        return out


class SpatialNorm(nn.Module):
    """Group norm, then a scale and a shift of each position, linear in the code there (MoVQ: Zheng et al., 2022).

    The published form is group norm with weights of its own (diffusers' `SpatialNorm`, Emu3).
    """

    def __init__(self, channels: int, code_channels: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm_layer = group_norm(channels, config)
        self.conv_y = nn.Conv2d(code_channels, channels, 1)
        self.conv_b = nn.Conv2d(code_channels, channels, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """(B, C, H, W), (B, E, h, w) -> (B, C, H, W); codes are repeated to the grid of `x`."""
        codes = F.interpolate(codes, size=x.shape[2:], mode="nearest")
        out: Tensor = self.norm_layer(x) * self.conv_y(codes) + self.conv_b(codes)
        return out


def norm(channels: int, config: VQGANConfig, code_channels: int | None) -> nn.Module:
    """Build the norm of a layer: a spatial one where it reads codes of `code_channels`, else a group norm."""
    return group_norm(channels, config) if code_channels is None else SpatialNorm(channels, code_channels, config)


def normed(layer: nn.Module, x: Tensor, codes: Tensor | None) -> Tensor:
    """Return `x` after a norm that `norm` built; a group norm reads no codes."""
    out: Tensor = layer(x, codes) if isinstance(layer, SpatialNorm) else layer(x)
    return out


class SymmetricDownsample(nn.Module):
    """Halve the grid with a strided convolution, padded on all sides: (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        out: Tensor = self.conv(x)
        return out


class DepthToSpace(nn.Module):
    """Double the grid with a convolution to four times the channels: (B, C, H, W) -> (B, C, 2H, 2W).

    Channel (2 i + j) C + c becomes channel c at offset (i, j); torch's pixel shuffle has 4 c + 2 i + j.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        batch, channels, height, width = x.shape
        spread: Tensor = self.conv(x)
        spread = spread.reshape(batch, 2, 2, channels, height, width).permute(0, 3, 4, 1, 5, 2)
        return spread.reshape(batch, channels, 2 * height, 2 * width)


class AdaptiveNorm(nn.Module):
    """Group norm without weights, then a scale and a shift of each channel by statistics of the codes (Open-MAGVIT2).

    The scale is linear in the codes' standard deviation over the grid, the shift in their mean.
    """

    def __init__(self, channels: int, code_channels: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm = GroupNorm(config.norm_groups, channels, eps=config.norm_eps, affine=False)
        self.gamma = nn.Linear(code_channels, channels)
        self.beta = nn.Linear(code_channels, channels)
        self.eps = config.norm_eps

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """(B, C, H, W), (B, E, h, w) -> (B, C, H, W)."""
        flat = codes.flatten(2)
        # Of one position the variance is 0; the published code divides by n - 1 and gives NaN there.
        variance = flat.var(dim=2, correction=1 if flat.shape[2] > 1 else 0)
        scale = self.gamma((variance + self.eps).sqrt())
        shift = self.beta(flat.mean(dim=2))
        out: Tensor = self.norm(x) * scale[:, :, None, None] + shift[:, :, None, None]
        return out


class Stage(nn.Module):
    """Residual blocks of one resolution, each followed by attention where there is any, then a change of the grid."""

    def __init__(
        self,
        widths: Sequence[int],
        config: VQGANConfig,
        *,
        attention: bool,
        resample: nn.Module | None,
        adaptive: AdaptiveNorm | None = None,
        code_channels: int | None = None,
    ) -> None:
        """`widths` has one number more than there are blocks: before the first block and after each.

        `code_channels` are those of the codes that every norm reads; None: norms read none.
        """
        super().__init__()
        self.adaptive = adaptive
        pairs = list(pairwise(widths))
        self.block = nn.ModuleList(ResidualBlock(before, after, config, code_channels) for before, after in pairs)
        self.attn = nn.ModuleList(Attention(after, config, code_channels) for _, after in pairs if attention)
        self.resample = resample

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and codes (B, E, h, w) for a norm that reads them -> (B, C', H', W')."""
        if self.adaptive is not None and codes is not None:
            x = self.adaptive(x, codes)
        for number, block in enumerate(self.block):
            x = block(x, codes)
            if len(self.attn):
                x = self.attn[number](x, codes)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Sequential):
    """The layers at the lowest resolution: residual blocks, with attention after the first."""

    def __init__(self, channels: int, config: VQGANConfig, code_channels: int | None = None) -> None:
        layers: list[nn.Module] = [
            ResidualBlock(channels, channels, config, code_channels) for _ in range(config.middle_blocks)
        ]
        if config.middle_attention:
            layers.insert(1, Attention(channels, config, code_channels))
        super().__init__(*layers)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """(B, C, h, w), and codes (B, E, h, w) for a spatial norm -> (B, C, h, w)."""
        for layer in self:
            x = layer(x, codes)
        return x


def downsampling(channels: int, config: VQGANConfig) -> nn.Module:
    """Build the layer that halves the grid."""
    if config.downsampling == "average":
        return nn.AvgPool2d(2)
    return Downsample(channels, channels) if config.downsampling == "strided" else SymmetricDownsample(channels)


def upsampling(channels: int, config: VQGANConfig) -> nn.Module:
    """Build the layer that doubles the grid."""
    return Upsample(channels, channels) if config.upsampling == "nearest" else DepthToSpace(channels)
