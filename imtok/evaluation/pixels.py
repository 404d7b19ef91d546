"""Metrics that compare the pixels of reconstructions and originals: PSNR and SSIM."""

# Axes: B batch, H x W image.

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from imtok.evaluation.metric import ImageMean

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from torch import Tensor


def psnr(restored: Tensor, originals: Tensor) -> Tensor:
    """Return 10 log10(255^2 / MSE) of each image in dB: two (B, 3, H, W) uint8 -> (B,) float64, infinite for equals."""
    errors = (restored.double() - originals.double()).square().mean(dim=(1, 2, 3))
    return 10 * (255**2 / errors).log10()


def ssim(restored: Tensor, originals: Tensor) -> Tensor:
    """Return the structural similarity of each image: two (B, 3, H, W) uint8 -> (B,) float64 in [-1, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # late: torchmetrics loads slowly

    values = structural_similarity_index_measure(
        restored.float(), originals.float(), data_range=255.0, reduction="none"
    )
    return cast("Tensor", values).double().reshape(-1)


class PSNR(ImageMean):
    """Peak signal-to-noise ratio, the mean over the images that do not come back exactly; infinite where all do."""

    name, label, unit, digits = "psnr", "PSNR", "dB", 2
    description = "dB, mean over images of 10 log10(255^2 / MSE); null where all are exact"
    method = "mean over images of 10 log10(255^2/MSE)"

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return `psnr` of each image."""
        return psnr(restored, originals)

    def compute(self) -> float:
        """Return the mean over the images that have an error."""
        import torch

        values = torch.cat(self.values)
        inexact = values[values.isfinite()]
        return float(inexact.mean()) if len(inexact) else math.inf


class SSIM(ImageMean):
    """Structural similarity (Wang et al., 2004): torchmetrics', with an 11 x 11 Gaussian window of sigma 1.5."""

    name, label = "ssim", "SSIM"
    description = "mean over images (Wang et al., 2004)"
    method = "11x11 Gaussian window, mean over images"
    smallest = 8  # the window is mirrored at the border

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return `ssim` of each image."""
        return ssim(restored, originals)
