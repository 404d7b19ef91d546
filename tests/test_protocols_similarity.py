"""Variants of SSIM, against the libraries and the evaluators that define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from imtok.evaluation import ssim
from imtok.evaluation.protocols import PROTOCOLS
from imtok.evaluation.protocols.similarity import ssim_uniform


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Smooth images and the same with noise that differs from image to image: two (3, 3, 40, 33) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (3, 3, 6, 5), generator=generator).float()
    smooth = functional.interpolate(coarse, size=(40, 33), mode="bicubic").clamp(0, 255)
    noise = torch.randn(smooth.shape, generator=generator) * torch.tensor([2.0, 10.0, 40.0]).reshape(3, 1, 1, 1)
    return (smooth + noise).clamp(0, 255).to(torch.uint8), smooth.to(torch.uint8)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_uniform_windows_are_those_of_scikit_image(pair: tuple[Tensor, Tensor], data_range: float) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    first, second = (each.permute(0, 2, 3, 1).numpy().astype(np.float64) / 255 for each in pair)
    expected = [
        metrics.structural_similarity(*images, data_range=data_range, channel_axis=-1)
        for images in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(ssim_uniform(*pair, data_range=data_range).numpy(), expected, rtol=1e-10)


def test_uniform_windows_by_hand_on_one_window() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randint(0, 256, (2, 1, 1, 7, 7), generator=generator, dtype=torch.uint8)
    x, y = first.double().flatten() / 255, second.double().flatten() / 255
    means, variances = x.mean() * y.mean(), x.var() + y.var()
    covariance = ((x - x.mean()) * (y - y.mean())).sum() / 48
    top = (2 * means + 1e-4) * (2 * covariance + 9e-4)
    expected = top / ((x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (variances + 9e-4))
    assert ssim_uniform(first, second).item() == pytest.approx(expected.item(), rel=1e-9)


def test_titok_has_the_similarity_of_maskbit(pair: tuple[Tensor, Tensor]) -> None:
    steps = torch.linspace(-5, 5, 11)
    line = torch.exp(-0.5 * (steps / 1.5).pow(2))
    kernel = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 11, 11)
    fake, real = (functional.pad(each / 255, [5, 5, 5, 5], mode="reflect") for each in pair)
    stacked = functional.conv2d(torch.cat([fake, real, fake**2, real**2, fake * real]), kernel, groups=3)
    mean_fake, mean_real, square_fake, square_real, product = stacked.chunk(5)
    top = (2 * mean_fake * mean_real + 1e-4) * (2 * (product - mean_fake * mean_real) + 9e-4)
    spread = square_fake - mean_fake**2 + square_real - mean_real**2
    expected = top / ((mean_fake**2 + mean_real**2 + 1e-4) * (spread + 9e-4))
    torch.testing.assert_close(ssim(*pair).float(), expected.mean((1, 2, 3)), atol=1e-5, rtol=0)


def test_floats_and_levels_agree_and_equals_are_one(pair: tuple[Tensor, Tensor]) -> None:
    floats = [each.double() / 127.5 - 1 for each in pair]
    torch.testing.assert_close(ssim_uniform(*floats), ssim_uniform(*pair))
    assert ssim_uniform(pair[0], pair[0]).tolist() == pytest.approx([1, 1, 1])


def test_the_range_of_adm_is_too_high(pair: tuple[Tensor, Tensor]) -> None:
    values = {}
    for name, protocol in PROTOCOLS.items():
        metric = protocol.metric("ssim")()
        metric.update(*pair)
        values[name] = metric.compute()
    assert values["var"] == values["titok"] == values["imtok"]
    assert values["adm"] > values["taming"] + 0.01


def test_psnr_of_levels_is_that_of_scikit_image_on_floats(pair: tuple[Tensor, Tensor]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    metric = PROTOCOLS["adm"].metric("psnr")()
    metric.update(*pair)
    first, second = (each.permute(0, 2, 3, 1).numpy().astype(np.float32) / np.float32(255) for each in pair)
    expected = [metrics.peak_signal_noise_ratio(*images) for images in zip(first, second, strict=True)]
    assert metric.compute() == pytest.approx(np.mean(expected), abs=1e-5)
