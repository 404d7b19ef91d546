"""What the channels of a decoder's raw output mean, and how they become images."""

# Axes: B batch, C channels, H x W image.

from __future__ import annotations

import torch
from torch import Tensor

from imtok.config import DecoderOutput
from imtok.losses.logit_laplace import unmap_pixels

# pixels: the images themselves. logit_laplace: three channels of locations, then three of log scales.
OUTPUT_CHANNELS: dict[DecoderOutput, int] = {"pixels": 3, "logit_laplace": 6}


def output_to_images(output: Tensor, kind: DecoderOutput) -> Tensor:
    """Turn a decoder's raw output (B, C, H, W) into images (B, 3, H, W), nominally in [-1, 1].

    Of logit-Laplace the image is the sigmoid of the locations, mapped back to pixels (Ramesh et al., 2021, A.3); the
    scales are left out.
    """
    if kind == "logit_laplace":
        return unmap_pixels(torch.sigmoid(output[:, :3].float()))
    return output
