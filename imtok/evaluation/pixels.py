"""Metrics that compare the pixels of reconstructions and originals: PSNR, SSIM and MS-SSIM."""

# Axes: B batch, H x W image.

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from imtok.evaluation.metric import ImageMean

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from torch import Tensor


def psnr(restored: Tensor, originals: Tensor) -> Tensor:
    """Return 10 log10(255^2 / MSE) of each image in dB: two (B, 3, H, W) -> (B,) float64, infinite for equals.

    Both are uint8, or both are floats in [-1, 1], which are scaled to [0, 255] without rounding.
    """
    errors = (_levels(restored.double(), restored) - _levels(originals.double(), originals)).square()
    return 10 * (255**2 / errors.mean(dim=(1, 2, 3))).log10()


def ssim(restored: Tensor, originals: Tensor, data_range: float = 255.0) -> Tensor:
    """Return the structural similarity of each image: two (B, 3, H, W) -> (B,) float64 in [-1, 1].

    Both are uint8, or both are floats in [-1, 1]. `data_range` is the L of the constants (0.01 L)^2 and (0.03 L)^2, in
    levels of 255 (Wang et al., 2004).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # late: torchmetrics loads slowly

    pair = [_levels(each.float(), each) for each in (restored, originals)]
    values = structural_similarity_index_measure(pair[0], pair[1], data_range=data_range, reduction="none")
    return cast("Tensor", values).double().reshape(-1)


def ms_ssim(restored: Tensor, originals: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of each image: two (B, 3, H, W) -> (B,) float64 in [0, 1].

    Both are uint8, or both are floats in [-1, 1]. Five scales have the weights of Wang et al. (2003), with an 11 x 11
    window; negative terms count as 0. Raises ValueError below 176 pixels a side: the coarsest scale, a sixteenth, must
    hold the window.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    pair = [_levels(each.float(), each) for each in (restored, originals)]
    values = multiscale_structural_similarity_index_measure(
        pair[0], pair[1], data_range=255.0, reduction="none", normalize="relu"
    )
    return values.double().reshape(-1)


def _levels(values: Tensor, images: Tensor) -> Tensor:
    """Return values of images in [0, 255]: those of floats in [-1, 1] are scaled, those of uint8 are levels already."""
    return (values + 1) * 127.5 if images.is_floating_point() else values


class PSNR(ImageMean):
    """Peak signal-to-noise ratio, the mean over the images that do not come back exactly; infinite where all do."""

    name, label, unit, digits = "psnr", "PSNR", "dB", 2
    description = "dB, mean over images of 10 log10(255^2 / MSE); null where all are exact"
    method = "mean over images of 10 log10(255^2/MSE)"

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return `psnr` of each image."""
        return psnr(restored, originals)

    def averaged(self) -> Tensor:
        """Return the values of the images that have an error."""
        values = self.values
        return values[values.isfinite()]

    def compute(self) -> float:
        """Return the mean over the images that have an error."""
        inexact = self.averaged()
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


class MSSSIM(ImageMean):
    """Multi-scale structural similarity (Wang et al., 2003): torchmetrics', with an 11 x 11 window on five scales."""

    name, label = "ms_ssim", "MS-SSIM"
    description = "mean over images, five scales (Wang et al., 2003)"
    method = "five scales, mean over images"
    smallest = 176
    by_default = False

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return `ms_ssim` of each image."""
        return ms_ssim(restored, originals)
