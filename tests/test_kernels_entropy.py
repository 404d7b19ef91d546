"""Kernels of soft assignment: entropies over all codes, and vectors on the unit sphere."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from families import noise
from torch import Tensor

from imtok.kernels import assignment_entropies, assignment_logits, propagate_index, to_sphere, unit_rows

# --- entropies


def test_entropies_are_those_of_their_definition() -> None:
    logits = 3 * noise(50, 12).double()
    shares = logits.softmax(dim=1)
    mean = shares.mean(dim=0)
    sample, batch = assignment_entropies(logits)
    torch.testing.assert_close(sample, torch.special.entr(shares).sum(dim=1).mean())
    torch.testing.assert_close(batch, torch.special.entr(mean).sum())


def test_entropies_lie_between_one_code_and_all_codes() -> None:
    sample, batch = assignment_entropies(torch.zeros(5, 16))
    assert sample.item() == pytest.approx(math.log(16))
    assert batch.item() == pytest.approx(math.log(16))
    sample, batch = assignment_entropies(1000 * torch.eye(16))  # sure of each code, even over all
    assert sample.item() == pytest.approx(0, abs=1e-6)
    assert batch.item() == pytest.approx(math.log(16))
    sample, batch = assignment_entropies(1000 * F.one_hot(torch.zeros(7, dtype=torch.int64), 16).float())
    assert batch.item() == pytest.approx(0, abs=1e-6)


def test_the_batch_entropy_is_exact_for_many_codes() -> None:
    logits = torch.zeros(2, 2**18)
    assert assignment_entropies(logits)[1].item() == pytest.approx(math.log(2**18), rel=1e-6)
    mean = logits.softmax(dim=1).mean(dim=0)
    assert -(mean * (mean + 1e-5).log()).sum().item() == pytest.approx(math.log(2**18) - 1.29, abs=0.01)


def test_entropies_of_nothing_are_zero() -> None:
    logits = torch.zeros(0, 16).requires_grad_()
    sample, batch = assignment_entropies(logits)
    (sample - batch).backward()
    assert sample == 0
    assert batch == 0


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_entropy_gradients_are_finite_however_sure_the_choice(scale: float) -> None:
    logits = (scale * noise(20, 8)).requires_grad_()
    sample, batch = assignment_entropies(logits)
    (sample - batch).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
def test_logits_order_the_codes_as_the_metric_does(metric: str) -> None:
    latents, codebook = noise(30, 4), noise(9, 4, seed=2)
    logits = assignment_logits(latents, codebook, metric)
    expected = latents @ codebook.T if metric == "dot" else -torch.cdist(latents, codebook).square()
    torch.testing.assert_close(logits.softmax(dim=1), expected.softmax(dim=1))


def test_a_propagated_index_is_the_code_to_the_last_bit() -> None:
    latents, codebook = noise(30, 4), noise(9, 4, seed=2)
    chosen = codebook[(latents @ codebook.T).argmax(dim=1)]
    assert torch.equal(propagate_index(latents, chosen, codebook), chosen)


# --- the unit sphere


def gradient(rows: Tensor, upstream: Tensor) -> Tensor:
    rows = rows.clone().requires_grad_()
    (found,) = torch.autograd.grad(unit_rows(rows), rows, upstream)
    return found


def test_rows_have_length_1_with_the_gradient_of_normalisation() -> None:
    rows, upstream = noise(20, 5), noise(20, 5, seed=2)
    torch.testing.assert_close(unit_rows(rows), F.normalize(rows, dim=1), atol=2e-7, rtol=2e-7)
    expected = rows.clone().requires_grad_()
    F.normalize(expected, dim=1).backward(upstream)
    torch.testing.assert_close(gradient(rows, upstream), expected.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1e-38, 1e-20, 1e-8, 1e-5, 2e-4, 1e-2])
def test_short_rows_have_a_bounded_gradient(length: float, dtype: torch.dtype) -> None:
    rows, upstream = F.normalize(noise(20, 5), dim=1).to(dtype) * length, noise(20, 5, seed=2).to(dtype)
    assert gradient(rows, upstream).abs().max() < 1e4 * upstream.abs().max()
    if length < 1e-4:
        assert torch.equal(gradient(rows, upstream), upstream)
    torch.testing.assert_close(unit_rows(rows), F.normalize(noise(20, 5), dim=1).to(dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1e-38, 1e-30, 1e15, 1e20, 1e38])
def test_directions_survive_squares_that_overflow_or_vanish(length: float) -> None:
    rows, upstream = F.normalize(noise(20, 5), dim=1), noise(20, 5, seed=2)
    torch.testing.assert_close(unit_rows(rows * length), rows, atol=1e-5, rtol=0)
    if length > 1:
        expected = gradient(rows.double(), upstream.double()) / length
        torch.testing.assert_close(gradient(rows * length, upstream).double(), expected, atol=1e-6 / length, rtol=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_row_stays_non_finite(bad: float) -> None:
    rows = noise(3, 5)
    rows[1, 2] = bad
    assert torch.isfinite(unit_rows(rows)).all(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize("length", [0.0, 1e-40, 1e-30, 1e-5, 1.1e-4, 1.0, 1e20])
def test_a_grid_goes_to_the_sphere_as_its_rows_do(length: float) -> None:
    rows, upstream = noise(24, 5) * length, noise(24, 5, seed=2)

    def grid(values: Tensor) -> Tensor:
        return values.view(2, 3, 4, 5).permute(0, 3, 1, 2)

    latents = grid(rows).clone().requires_grad_()
    points = to_sphere(latents)
    torch.testing.assert_close(points, grid(unit_rows(rows)), atol=1e-6, rtol=1e-6)
    (turned,) = torch.autograd.grad(points, latents, grid(upstream))
    torch.testing.assert_close(turned, grid(gradient(rows, upstream)), rtol=1e-4, atol=1e-6 * float(turned.abs().max()))


def test_a_zero_row_stays_and_passes_the_gradient_unchanged() -> None:
    upstream = noise(3, 5)
    assert torch.equal(unit_rows(torch.zeros(3, 5)), torch.zeros(3, 5))
    assert torch.equal(gradient(torch.zeros(3, 5), upstream), upstream)


def test_one_dimension_is_a_sign() -> None:
    assert unit_rows(torch.tensor([[0.3], [-7.0], [0.0]])).tolist() == [[1.0], [-1.0], [0.0]]
