"""Bits an image of codes, raw and entropy-coded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imtok.evaluation.rates import rate_of


def test_raw_bits_are_those_of_the_grid() -> None:
    counts = np.full((2, 8), 16, np.int64)  # 4 images of 8 x 4 positions, two codebooks of 8 codes
    rate = rate_of(counts, images=4, size=32)
    assert rate.bits_per_image == pytest.approx(8 * 4 * 2 * 3)
    assert rate.bits_per_pixel == pytest.approx(192 / 32**2)


def test_even_codes_cannot_be_coded_in_fewer_bits() -> None:
    rate = rate_of(np.full((1, 256), 4, np.int64), images=16, size=16)
    assert rate.coded_bits_per_image == rate.bits_per_image


def test_uneven_codes_are_coded_near_their_entropy() -> None:
    counts = np.array([[90_000, 5_000, 3_000, 2_000], [25_000, 25_000, 25_000, 25_000]])
    shares = counts[0] / counts[0].sum()
    entropies = -(shares * np.log2(shares)).sum() + 2
    rate = rate_of(counts, images=100, size=64)
    assert rate.coded_bits_per_image == pytest.approx(1000 * entropies, rel=2e-3)
    assert rate.coded_bits_per_image > 1000 * entropies
    assert rate.coded_bits_per_pixel == pytest.approx(rate.coded_bits_per_image / 4096)


def test_one_code_for_everything_costs_almost_nothing() -> None:
    rate = rate_of(np.array([[10_000, 0]]), images=10, size=32)
    assert rate.bits_per_image == 1000
    assert rate.coded_bits_per_image < math.log2(10_000)
