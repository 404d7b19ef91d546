"""Swatches equal what the tokenizer decodes, and mean patches equal a mean by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import QUANTIZERS, tiny

from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.visualisations import mean_patches, most_used, swatches
from imtok.quantizer_config import FSQConfig, ProductConfig, ResidualConfig
from imtok.tokenizer import Tokenizer, to_uint8


def use(tokenizer: Tokenizer) -> np.ndarray:
    """(Q, K) counts; code 5 + q is the most used of codebook q."""
    counts = np.random.default_rng(0).integers(0, 9, (tokenizer.num_codebooks, tokenizer.num_codes))
    counts[np.arange(len(counts)), 5 + np.arange(len(counts))] = 99
    return counts


def middle(tokenizer: Tokenizer, grid: torch.Tensor) -> np.ndarray:
    """The pixels of the place in the middle of a grid of 3 x 3: (f, f, 3)."""
    f = tokenizer.downsample
    return to_uint8(tokenizer.decode(grid))[0, :, f : 2 * f, f : 2 * f].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if tiny(quantizer=QUANTIZERS[name]).num_codebooks == 1])
def test_a_swatch_is_the_middle_of_a_uniform_grid(name: str) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS[name]).eval()
    codes = np.array([3, 0, 11])
    found = swatches(BatchedRunner(tokenizer, device="cpu", batch_size=1), codes, use(tokenizer), side=3)
    assert found.shape == (3, 8, 8, 3)
    for swatch, code in zip(found, codes, strict=True):
        np.testing.assert_array_equal(swatch, middle(tokenizer, torch.full((1, 3, 3), int(code))))


@pytest.mark.parametrize("name", ["residual", "residual-shared", "residual-fsq"])
def test_a_residual_swatch_shows_the_first_stage_alone(name: str) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS[name]).eval()
    (found,) = swatches(BatchedRunner(tokenizer, device="cpu"), np.array([4]), use(tokenizer), side=3)
    np.testing.assert_array_equal(found, middle(tokenizer, torch.full((1, 3, 3, 1), 4)))


@pytest.mark.parametrize(
    ("name", "others"), [("product", [6]), ("product-shared", [6]), ("product-of-residuals", [6, 7, 8])]
)
def test_other_heads_have_the_code_they_use_most(name: str, others: list[int]) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS[name]).eval()
    (found,) = swatches(BatchedRunner(tokenizer, device="cpu"), np.array([4]), use(tokenizer), side=3)
    np.testing.assert_array_equal(found, middle(tokenizer, torch.tensor([4, *others]).repeat(1, 3, 3, 1)))


def test_a_first_stage_of_several_heads_is_shown_whole() -> None:
    part = ProductConfig(part=FSQConfig(levels=(5, 3)), heads=2)
    tokenizer = tiny(quantizer=ResidualConfig(part=part, depth=2)).eval()
    (found,) = swatches(BatchedRunner(tokenizer, device="cpu"), np.array([4]), use(tokenizer), side=3)
    np.testing.assert_array_equal(found, middle(tokenizer, torch.tensor([4, 6]).repeat(1, 3, 3, 1)))


def test_a_residual_of_one_stage_has_one_codebook() -> None:
    tokenizer = tiny(quantizer=ResidualConfig(part=FSQConfig(levels=(5, 3)), depth=1)).eval()
    (found,) = swatches(BatchedRunner(tokenizer, device="cpu"), np.array([4]), use(tokenizer), side=3)
    np.testing.assert_array_equal(found, middle(tokenizer, torch.full((1, 3, 3), 4)))


def test_no_codes_have_no_swatches() -> None:
    tokenizer = tiny()
    assert swatches(BatchedRunner(tokenizer, device="cpu"), np.array([], np.int64), use(tokenizer)).shape == (
        0,
        8,
        8,
        3,
    )


def test_the_most_used_codes_come_first_and_unused_ones_never() -> None:
    counts = np.array([0, 4, 9, 0, 4, 1])
    assert most_used(counts).tolist() == [2, 1, 4, 5]
    assert most_used(counts, 2).tolist() == [2, 1]


def test_a_mean_patch_averages_the_occurrences_of_a_code() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    grids = torch.tensor([[[7, 1, 7], [2, 2, 2]], [[2, 2, 2], [2, 2, 7]]])
    patches, found = mean_patches(images, grids, np.array([7, 1, 5]))
    assert found.tolist() == [3, 1, 0]
    there = [images[0, :, 0:2, 0:2], images[0, :, 0:2, 4:6], images[1, :, 2:4, 4:6]]
    mean = torch.stack(there).double().mean(dim=0).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(patches[0], mean.round().astype(np.uint8))
    np.testing.assert_array_equal(patches[1], images[0, :, 0:2, 2:4].permute(1, 2, 0).numpy())
    assert (patches[2] == 128).all()
