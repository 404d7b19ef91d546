"""The blurring patch discriminator of MaskBit (Weber et al., 2024), which TiTok and Open-MAGVIT2 train with too.

Patches as in PatchGAN, but grids are halved by a blur instead of strided convolutions, which leave a pattern in the
gradient. In 1d-tokenizer (TiTok) the last grid is pooled to 16 x 16 by maxima, so that an image of any size gets as
many logits; Open-MAGVIT2's has no such pool. Published inputs are in [0, 1]; here they are in [-1, 1] like all images.
"""

# Axes: B batch, H x W image, h x w grid of patches.

from __future__ import annotations

import math

from torch import Tensor, nn

from imtok.networks.base import Discriminator
from imtok.networks.blur import Blur
from imtok.networks.checks import refuse_below, refuse_small
from imtok.networks.norms import GroupNorm


class MaskBitDiscriminator(Discriminator):
    """Images to a grid of logits, one a patch; high means real.

    channels
        Width of the first stage, doubled with each further one; 64 in Open-MAGVIT2, 128 in TiTok.
    layers
        Stages, each of which halves the grid.
    pool
        Side of the grid of logits; None leaves the grid as the stages give it, which small crops need.

    GroupNorm has the published 32 groups, or as many as 32 and the width have for a common divisor.
    """

    def __init__(self, channels: int = 64, layers: int = 3, pool: int | None = 16) -> None:
        super().__init__()
        refuse_below(1, channels=channels, layers=layers, pool=1 if pool is None else pool)
        self.layers, self._pool_size = layers, pool
        widths = [channels, *(channels * 2**layer for layer in range(layers))]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 5, padding=2), _activation())
        self.stages = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        self.pool = nn.Identity() if pool is None else nn.AdaptiveMaxPool2d(pool)
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 1), _activation(), nn.Conv2d(widths[-1], 1, 5, padding=2)
        )

    @property
    def min_size(self) -> int:
        """Least side of an image: pooling from a smaller grid would repeat it, and a single position has no norm."""
        return (self._pool_size or 2) << self.layers

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> logits (B, 1, h, w), h = `pool` or ceil(H / 2^layers).

        Logits have autocast's type where there is one. Raises ValueError on images below `min_size`.
        """
        refuse_small(images, self.min_size)
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


def _stage(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, padding=1),
        Blur(4, stride=2),
        GroupNorm(math.gcd(32, out_channels), out_channels),
        _activation(),
    )


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)
