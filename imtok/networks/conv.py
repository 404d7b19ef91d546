"""The convolutional encoder and decoder around the quantizer.

In the manner of VQ-GAN (Esser et al., 2021), with one addition: the pixels of each patch of `patch_size` x `patch_size`
may become channels before the first layer (pixel unshuffle). That replaces the layers at full resolution, which hold
few parameters and most of the cost.
"""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample.

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Encoder, TrunkDecoder
from imtok.networks.blocks import Attention, Downsample, ResidualBlock, Upsample, group_norm
from imtok.networks.norms import in_fast_order


class ConvEncoder(Encoder):
    """Images to latents; `channels` from the finest to the coarsest stage, the grid halved between stages."""

    def __init__(self, dim: int, *, patch_size: int, channels: Sequence[int], blocks: int, attention: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(patch_size),
            nn.Conv2d(3 * patch_size**2, channels[0], 3, padding=1),
        ]
        for stage, width in enumerate(channels):
            if stage > 0:
                layers.append(Downsample(channels[stage - 1], width))
            layers += [ResidualBlock(width) for _ in range(blocks)]
        if attention:
            layers += [Attention(channels[-1]), ResidualBlock(channels[-1])]
        self.trunk = nn.Sequential(*layers)
        self.norm_out = group_norm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], dim, 1)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Encoder.compilable`."""
        return [self.trunk]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to latents (B, dim, h, w)."""
        latents: Tensor = self.conv_out(F.silu(self.norm_out(self.trunk(images))))
        return latents


class ConvDecoder(TrunkDecoder):
    """Latents to images, or to more channels for each pixel; the encoder's stages in reverse."""

    def __init__(
        self,
        dim: int,
        *,
        patch_size: int,
        channels: Sequence[int],
        blocks: int,
        attention: bool,
        output_channels: int = 3,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(dim, channels[-1], 3, padding=1)]
        if attention:
            layers += [ResidualBlock(channels[-1]), Attention(channels[-1])]
        for stage in reversed(range(len(channels))):
            layers += [ResidualBlock(channels[stage]) for _ in range(blocks)]
            if stage > 0:
                layers.append(Upsample(channels[stage], channels[stage - 1]))
        self.trunk = nn.Sequential(*layers)
        self.norm_out = group_norm(channels[0])
        self.conv_out = nn.Conv2d(channels[0], output_channels * patch_size**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents (B, dim, h, w) to (B, output_channels, H, W), of three channels nominally in [-1, 1]."""
        trunk = self.trunk(in_fast_order(latents))
        images: Tensor = self.unfold(self.conv_out(F.silu(self.norm_out(trunk))))
        return images
