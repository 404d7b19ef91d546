"""The logit-Laplace loss of DALL-E's tokenizer (Ramesh et al., 2021, "Zero-Shot Text-to-Image Generation", A.3).

The loss is the likelihood of pixels under a Laplace distribution passed through a sigmoid, whose support is (0, 1). A
decoder that models pixels in this way gives no probability to values that no pixel can have, and its scale says how
sure it is. Pixels are first mapped inside the interval, since its ends have no logit.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from imtok.config import DecoderOutput
from imtok.losses.base import LossTerm

# pixels: the images themselves. logit_laplace: three channels of locations, then three of log scales.
OUTPUT_CHANNELS: dict[DecoderOutput, int] = {"pixels": 3, "logit_laplace": 6}


def map_pixels(images: Tensor, eps: float = 0.1) -> Tensor:
    """Map images in [-1, 1] to float32 in [eps, 1 - eps]."""
    return (1 - 2 * eps) * (images.float() + 1) / 2 + eps


def unmap_pixels(mapped: Tensor, eps: float = 0.1) -> Tensor:
    """Map values of `map_pixels`, or the sigmoid of a decoder's locations, back to images in [-1, 1], clamped."""
    return ((mapped.float() - eps) / (1 - 2 * eps)).clamp(0, 1) * 2 - 1


def logit_laplace_loss(locations: Tensor, log_scales: Tensor, images: Tensor, eps: float = 0.1) -> Tensor:
    """Compute the negative log-likelihood of images without its constant log 2, a mean over all values.

    |logit(t) - mu| / b + log b + log(t (1 - t)), with t the mapped pixels, mu the locations and log b the log scales
    that a decoder of six channels gives; all three inputs (B, 3, H, W), images in [-1, 1].
    """
    targets = map_pixels(images, eps)
    log_scales = log_scales.float()
    distances = (torch.logit(targets) - locations.float()).abs()
    return (distances * torch.exp(-log_scales) + log_scales + torch.log(targets * (1 - targets))).mean()


def output_to_images(output: Tensor, kind: DecoderOutput) -> Tensor:
    """Turn a decoder's raw output (B, C, H, W) into images (B, 3, H, W), nominally in [-1, 1].

    Of logit-Laplace the image is the sigmoid of the locations, mapped back to pixels (Ramesh et al., 2021, A.3); the
    scales are left out.
    """
    if kind == "logit_laplace":
        return unmap_pixels(torch.sigmoid(output[:, :3].float()))
    return output


class LogitLaplaceTerm(LossTerm):
    """The loss of a decoder whose six channels are the locations and log scales of the distribution of each pixel."""

    name: ClassVar[str] = "logit_laplace"
    decoder_output: ClassVar[DecoderOutput] = "logit_laplace"

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        """Return the loss of `output` (B, 6, H, W) as a float32 scalar."""
        locations, log_scales = output.chunk(2, dim=1)
        return logit_laplace_loss(locations, log_scales, images)
