"""The encoder and decoder of DALL-E's discrete VAE (Ramesh et al., 2021, "Zero-Shot Text-to-Image Generation", A.1).

No layer normalises. Each residual path is scaled by the inverse square of the number of blocks, so that a deep stack
begins near the identity. The encoder halves the grid by maxima, the decoder doubles it by repeating pixels. Pixels are
mapped from [-1, 1] to [0.1, 0.9] first, since the logit-Laplace distribution of the decoder has no ends (A.3).

Published are an encoder that ends in logits and a decoder that begins with a one-hot code. These two 1x1 convolutions
are the logits and the codebook of a Gumbel quantizer here.
"""

# Axes: B batch, H x W image, h x w latent grid with h = H / 8.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Encoder, TrunkDecoder
from imtok.networks.norms import in_fast_order


class DVAEBlock(nn.Module):
    """Four convolutions, each after a ReLU, scaled and added to the input: (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, channels: int, out_channels: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        hidden = out_channels // 4
        widths = [channels, *[hidden] * (len(kernels) - 1), out_channels]
        self.gain = gain
        self.shortcut = nn.Identity() if channels == out_channels else _convolution(channels, out_channels, 1)
        path = OrderedDict[str, nn.Module]()
        for number, kernel in enumerate(kernels, start=1):
            path[f"relu_{number}"] = nn.ReLU()
            path[f"conv_{number}"] = _convolution(widths[number - 1], widths[number], kernel)
        self.path = nn.Sequential(path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        out: Tensor = self.shortcut(x) + self.gain * self.path(x)
        return out


class DVAEEncoder(Encoder):
    """Images to latents: the last features after a ReLU, or a 1x1 convolution of them to `dim` channels."""

    def __init__(self, dim: int | None, *, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers = OrderedDict[str, nn.Module](input=_convolution(3, widths[0], 7))
        gain = _gain(widths, blocks)
        for stage, width in enumerate(widths):
            group = _group(widths[max(stage - 1, 0)], width, blocks, (3, 3, 3, 1), gain)
            if stage < len(widths) - 1:
                group["pool"] = nn.MaxPool2d(2)
            layers[f"group_{stage + 1}"] = nn.Sequential(group)
        self.trunk = nn.Sequential(layers)
        self.conv_out = nn.Identity() if dim is None else _convolution(widths[-1], dim, 1)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Encoder.compilable`."""
        return [self.trunk]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to latents (B, dim, h, w)."""
        latents: Tensor = self.conv_out(F.relu(self.trunk(0.4 * images + 0.5)))
        return latents


class DVAEDecoder(TrunkDecoder):
    """Latents to images, or to the locations and log scales of each pixel's distribution."""

    def __init__(self, dim: int, *, widths: Sequence[int], blocks: int, output_channels: int = 3) -> None:
        super().__init__()
        layers = OrderedDict[str, nn.Module]()
        channels, gain = dim, _gain(widths, blocks)
        for number, width in enumerate(reversed(widths), start=1):
            group = _group(channels, width, blocks, (1, 3, 3, 3), gain)
            if number < len(widths):
                group["upsample"] = nn.Upsample(scale_factor=2, mode="nearest")
            layers[f"group_{number}"] = nn.Sequential(group)
            channels = width
        self.trunk = nn.Sequential(layers)
        self.conv_out = _convolution(widths[0], output_channels, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents (B, dim, h, w) to (B, output_channels, H, W), of three channels nominally in [-1, 1]."""
        out: Tensor = self.conv_out(F.relu(self.trunk(in_fast_order(latents))))
        return out


def _group(channels: int, width: int, blocks: int, kernels: Sequence[int], gain: float) -> OrderedDict[str, nn.Module]:
    """Return the blocks of a stage by name; the first one changes the channels."""
    inputs = [channels, *[width] * (blocks - 1)]
    return OrderedDict(
        (f"block_{number}", DVAEBlock(before, width, kernels, gain)) for number, before in enumerate(inputs, start=1)
    )


def _gain(widths: Sequence[int], blocks: int) -> float:
    return 1 / (len(widths) * blocks) ** 2


def _convolution(channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """Return a convolution with the published initial weights: normal of variance 1 / fan-in, no bias."""
    layer = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=(channels * kernel**2) ** -0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
