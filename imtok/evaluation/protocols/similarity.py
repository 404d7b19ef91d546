"""Structural similarity (Wang et al., 2004) as scikit-image computes it, which most families of tokenizers use.

It is the mean over positions and channels of

    (2 m_x m_y + c_1)(2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(s_x^2 + s_y^2 + c_2)),  c_1 = (0.01 L)^2, c_2 = (0.03 L)^2

on values in [0, 1], where m, s^2 and s_xy are means, variances and covariance in a window, and L is the data range. A
larger L brings every value nearer to 1.
"""

# Axes: B batch, H x W image.

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imtok.evaluation.pixels import SSIM

if TYPE_CHECKING:  # whoever names a protocol loads no torch
    from torch import Tensor

_SIDE = 7  # of the uniform window


def ssim_uniform(restored: Tensor, originals: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the similarity in uniform 7 x 7 windows inside the image: two (B, 3, H, W) -> (B,) float64.

    This is scikit-image's structural_similarity by default: variances are those of a sample, with divisor 48. Both are
    uint8, or both are floats in [-1, 1]. Here all is float64; scikit-image takes float32 where its images are float32.
    """
    from torch.nn import functional

    def local_mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, _SIDE, stride=1)

    first, second = _unit(restored), _unit(originals)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    correction = _SIDE**2 / (_SIDE**2 - 1)
    mean, other_mean = local_mean(first), local_mean(second)
    variance = correction * (local_mean(first * first) - mean * mean)
    other_variance = correction * (local_mean(second * second) - other_mean * other_mean)
    covariance = correction * (local_mean(first * second) - mean * other_mean)
    values = (2 * mean * other_mean + c1) * (2 * covariance + c2)
    values /= (mean * mean + other_mean * other_mean + c1) * (variance + other_variance + c2)
    return values.mean(dim=(1, 2, 3))


def _unit(images: Tensor) -> Tensor:
    """Convert uint8, or floats in [-1, 1], to float64 in [0, 1]."""
    return (images.double() + 1) / 2 if images.is_floating_point() else images.double() / 255


class UniformSSIM(SSIM):
    """Structural similarity in uniform windows, with the right data range."""

    data_range: ClassVar[float] = 1.0
    description = "scikit-image's, in uniform 7 x 7 windows, mean over images (Wang et al., 2004)"
    method = "7x7 uniform window of scikit-image, mean over images"

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return `ssim_uniform` of each image."""
        return ssim_uniform(restored, originals, self.data_range)


class UniformSSIMOfRange2(UniformSSIM):
    """Structural similarity in uniform windows of values in [0, 1], with the data range of [-1, 1]."""

    data_range: ClassVar[float] = 2.0
    description = "scikit-image's, in uniform 7 x 7 windows, with data range 2 on [0, 1], mean over images"
    method = "7x7 uniform window of scikit-image, data range 2 on [0, 1], so too high, mean over images"
