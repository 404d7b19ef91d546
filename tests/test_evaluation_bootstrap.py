"""Bootstrap intervals of means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imtok.evaluation import METRICS, interval_of_mean


def test_many_values_have_the_interval_of_a_normal_law() -> None:
    values = np.random.default_rng(1).normal(10, 2, 2000)
    low, high = interval_of_mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)


def test_the_interval_covers_the_mean_as_often_as_promised() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = interval_of_mean(random.exponential(1.0, 100), confidence=0.8, resamples=200)
        covered += low <= 1.0 <= high
    assert 0.7 < covered / 200 < 0.88


def test_the_interval_is_drawn_alike_from_one_seed() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert interval_of_mean(values) == interval_of_mean(values.copy())
    assert interval_of_mean(values) != interval_of_mean(values, seed=1)
    low, high = interval_of_mean(values)
    assert interval_of_mean(values + 1) == pytest.approx((low + 1, high + 1))


def test_one_value_has_an_interval_of_no_width() -> None:
    assert interval_of_mean(np.array([3.0])) == (3.0, 3.0)


def test_exact_images_alone_have_no_interval_of_psnr() -> None:
    import torch

    psnr, images = METRICS["psnr"](), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    psnr.update(images, images)
    assert (psnr.compute(), psnr.interval()) == (math.inf, None)
