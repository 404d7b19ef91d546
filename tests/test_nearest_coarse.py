"""The bf16 search: its results are those of exact arithmetic, whatever bf16 cannot tell apart."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from families import noise
from torch import Tensor

from imtok.devices import Precision, deterministic
from imtok.kernels import nearest_coarse, nearest_codes
from imtok.kernels.nearest import Metric
from imtok.kernels.nearest_coarse import search_coarse

NEAREST = importlib.import_module("imtok.kernels.nearest")


@pytest.fixture
def always_coarse(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each search was decided by bf16 products, which every search now tries."""
    decided: list[bool] = []

    def search(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor] | None:
        found = search_coarse(rows, table, centre)
        decided.append(found is not None)
        return found

    monkeypatch.setattr(NEAREST, "_coarse", lambda _: True)
    monkeypatch.setattr(nearest_coarse, "search_coarse", search)
    return decided


def exact(latents: Tensor, codebook: Tensor, metric: str = "euclidean") -> Tensor:
    products = latents.double() @ codebook.double().T
    norms = codebook.double().square().sum(dim=1) / 2 if metric == "euclidean" else 0
    return (norms - products).argmin(dim=1)


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
@pytest.mark.parametrize(
    ("count", "dim", "num_codes"), [(300, 1, 64), (70, 17, 1), (1, 32, 65), (200, 64, 3000), (150, 256, 700)]
)
def test_the_codes_are_those_of_exact_arithmetic(count: int, dim: int, num_codes: int, metric: str) -> None:
    latents, codebook = noise(count, dim), noise(num_codes, dim, seed=1)
    centre = torch.zeros(dim) if metric == "euclidean" else None
    found = search_coarse(latents, codebook, centre)
    assert found is not None
    assert torch.equal(found[1], exact(latents, codebook, metric))
    assert torch.isfinite(found[0]).all()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_the_bound_holds_at_every_scale(scale: float) -> None:
    latents, codebook = noise(200, 40) * scale, noise(500, 40, seed=1) * scale
    found = search_coarse(latents, codebook, torch.zeros(40))
    assert found is not None
    assert torch.equal(found[1], exact(latents, codebook))


def test_codes_of_very_different_lengths_are_compared_exactly() -> None:
    codebook = noise(640, 24, seed=1) * torch.logspace(-6, 3, 640).unsqueeze(1)
    latents = codebook[::3] + noise(214, 24) * 1e-4
    found = search_coarse(latents, codebook, torch.zeros(24))
    assert found is not None
    assert torch.equal(found[1], exact(latents, codebook))


def test_codes_that_bf16_cannot_tell_apart_are_told_apart() -> None:
    centres = noise(50, 32, seed=1)
    codebook = torch.cat([centres, centres * (1 + 1e-4), centres * (1 - 1e-4)])  # neighbours equal in bf16, mostly
    wanted = torch.arange(150)
    found = search_coarse(codebook[wanted], codebook, torch.zeros(32))
    assert found is not None
    assert torch.equal(found[1], wanted)


@pytest.mark.usefixtures("always_coarse")
def test_equal_codes_go_to_the_lower_index() -> None:
    codebook = noise(700, 20).repeat(3, 1)
    assert torch.equal(nearest_codes(codebook, codebook), torch.arange(700).repeat(3))


def test_a_codebook_of_equal_codes_is_searched_in_float32(always_coarse: list[bool]) -> None:
    codebook = torch.ones(5000, 20)
    assert nearest_codes(noise(100, 20), codebook).tolist() == [0] * 100
    assert always_coarse == [False]


@pytest.mark.parametrize(("length", "code_length"), [(0.0, 1.0), (1e-18, 1e-18), (1e25, 1e10)])
def test_lengths_that_leave_all_undecided_are_searched_in_float32(
    length: float, code_length: float, always_coarse: list[bool]
) -> None:
    codes = nearest_codes(noise(100, 20) * length, noise(3000, 20, seed=1) * code_length, "dot")
    assert always_coarse == [False]
    assert torch.equal(codes, exact(noise(100, 20) * length, noise(3000, 20, seed=1) * code_length, "dot"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.usefixtures("always_coarse")
def test_what_is_not_finite_is_refused(bad: float) -> None:
    latents, codebook = noise(100, 20), noise(300, 20, seed=1)
    latents[7, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(latents, codebook)
    codebook[250, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(noise(10, 20), codebook)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_both_ways_find_the_same_codes(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, codebook = noise(500, 48) + 5, noise(1500, 48, seed=1) + 5
    expected = nearest_codes(latents, codebook, metric)
    monkeypatch.setattr(NEAREST, "_coarse", lambda _: True)
    assert torch.equal(nearest_codes(latents, codebook, metric), expected)


def test_the_error_of_a_bf16_score_stays_within_its_bound() -> None:
    latents, codes = noise(100, 64), noise(128, 64, seed=1)
    rounded = [nearest_coarse._Rounded.of(rows) for rows in (latents, codes)]
    scores = -(rounded[0].values @ rounded[1].values.T).float()
    bound = nearest_coarse._bound(
        scores,
        rounded[0].length[:, None],
        rounded[0].error[:, None],
        rounded[1].length,
        rounded[1].error,
        torch.zeros(128),
        dim=64,
    )
    error = (scores.double() + latents.double() @ codes.double().T).abs()
    assert (error <= bound).all()
    assert error.max() > bound.mean() / 20  # a bound far too wide would leave everything undecided


def test_speeds_are_measured_once_and_only_for_large_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[torch.dtype] = []

    def seconds(dtype: torch.dtype) -> float:
        timed.append(dtype)
        return 1.0 if dtype == torch.float32 else 0.5

    monkeypatch.setattr(nearest_coarse, "_product_seconds", seconds)
    monkeypatch.setattr(nearest_coarse, "_speeds", nearest_coarse._Speeds())
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert not NEAREST._coarse(nearest_coarse.LEAST_WORK - 1)
    assert timed == []
    assert NEAREST._coarse(nearest_coarse.LEAST_WORK)
    measured = len(timed)
    assert NEAREST._coarse(nearest_coarse.LEAST_WORK)
    assert len(timed) == measured > 0


def test_a_processor_without_bf16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(nearest_coarse, "_speeds", None)
    assert not nearest_coarse.bf16_products_are_faster()


PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def test_a_decision_takes_the_place_of_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(nearest_coarse, "_speeds", None)  # whoever times fails
    for precision in PRECISIONS:
        with deterministic(torch.device("cpu"), precision):
            assert nearest_coarse.bf16_products_are_faster() == (precision == "bf16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with deterministic(torch.device("cpu"), "bf16"):
        assert not nearest_coarse.bf16_products_are_faster()
