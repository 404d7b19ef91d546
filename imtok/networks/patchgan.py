"""The PatchGAN discriminator (Isola et al., 2017, pix2pix; Esser et al., 2021, "Taming Transformers").

Each logit is of one patch of the image, 70 x 70 pixels with three strided layers. GroupNorm is the default where the
publications have BatchNorm. With BatchNorm the logits of an image depend on the others in the batch. And it fails under
DistributedDataParallel, since its statistics change in place between the forwards on real and fake images that share
one backward.
"""

# Axes: B batch, H x W image, h x w grid of patches.

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from imtok.networks.actnorm import ActNorm
from imtok.networks.base import Discriminator
from imtok.networks.blocks import group_norm
from imtok.networks.checks import refuse_below, refuse_small
from imtok.networks.norms import BatchNorm

_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": group_norm,
    "batch": BatchNorm,
    "act": ActNorm,
    "none": nn.Identity,
}


class PatchDiscriminator(Discriminator):
    """Images to a grid of logits, one a patch; high means real.

    channels
        Width of the first layer; the n-th after it is min(2^n, 8) times as wide.
    layers
        Strided convolutions, of which one more without a stride follows; together they set the size of a patch.
    norm
        After all convolutions but the first and the last: `group`, the published `batch` or `act` (data-dependent
        start, see `ActNorm`), or `none`.
    """

    def __init__(
        self, channels: int = 64, layers: int = 3, norm: Literal["group", "batch", "act", "none"] = "group"
    ) -> None:
        super().__init__()
        refuse_below(1, channels=channels, layers=layers)
        if norm not in _NORMS:
            raise ValueError(f"norm is {norm!r}, expected one of {', '.join(_NORMS)}")
        self.layers = layers
        widths = [channels * min(2**layer, 8) for layer in range(layers + 1)]
        trunk = [_conv(3, widths[0], stride=2), nn.LeakyReLU(0.2, inplace=True)]
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            trunk += [
                _conv(widths[layer - 1], widths[layer], stride=stride, bias=norm != "batch"),  # BatchNorm has its own
                _NORMS[norm](widths[layer]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.trunk = nn.Sequential(*trunk)
        self.head = _conv(widths[-1], 1, stride=1)
        self.apply(_draw_weights)

    @property
    def min_size(self) -> int:
        """Least side of an image: one logit comes out of it."""
        return 3 << self.layers

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> logits (B, 1, h, w), h = floor(H / 2^layers) - 2.

        Logits have autocast's type where there is one. Raises ValueError on images below `min_size`.
        """
        refuse_small(images, self.min_size)
        logits: Tensor = self.head(self.trunk(images))
        return logits


def _conv(channels: int, out_channels: int, *, stride: int, bias: bool = True) -> nn.Module:
    return nn.Conv2d(channels, out_channels, 4, stride=stride, padding=1, bias=bias)


def _draw_weights(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02), the norms' weights from N(1, 0.02); biases stay as torch has them."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
