"""Pixel metrics against torchmetrics' own classes, and the smallest images that they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imtok.evaluation import METRICS
from imtok.evaluation.pixels import ms_ssim, ssim


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    originals = torch.randint(0, 256, (2, 3, 176, 176), generator=generator, dtype=torch.uint8)
    return (0.7 * originals.float() + 40).to(torch.uint8), originals


def test_similarities_are_those_of_torchmetrics_classes(pair: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure, StructuralSimilarityIndexMeasure

    floats = [each.float() for each in pair]
    expected = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)(*floats)
    assert ms_ssim(*pair).mean().item() == pytest.approx(expected.item(), rel=1e-6)
    assert ssim(*pair).mean().item() == pytest.approx(
        StructuralSimilarityIndexMeasure(data_range=255.0)(*floats).item()
    )
    assert 0.1 < expected < 0.999


def test_ms_ssim_of_equal_images_is_one(pair: tuple[Tensor, Tensor]) -> None:
    assert ms_ssim(pair[0], pair[0]).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_ms_ssim_needs_the_size_that_it_declares(pair: tuple[Tensor, Tensor]) -> None:
    assert METRICS["ms_ssim"].smallest == pair[0].shape[-1]
    with pytest.raises(ValueError, match="must be larger than 160"):
        ms_ssim(*(each[:, :, 1:, 1:] for each in pair))


def test_a_larger_data_range_makes_ssim_higher(pair: tuple[Tensor, Tensor]) -> None:
    assert (ssim(*pair, data_range=510.0) > ssim(*pair)).all()
