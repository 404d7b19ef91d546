"""The pure functions under the quantizers, against float64 brute force, one-hot matrices and explicit formulas."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.kernels import (
    codebook_statistics,
    codes_to_digits,
    digits_to_codes,
    finite_scalar_bound,
    finite_scalar_codes,
    nearest_codes,
    rotate_to,
)
from imtok.kernels.nearest_tiles import TILE_CODES, TILE_ROWS

NEAREST = importlib.import_module("imtok.kernels.nearest")
WIDE = 300  # in so many dimensions a chunk is a few tiles of latents
CHUNK_ROWS: int = NEAREST._CHUNK // (WIDE + 1) // TILE_ROWS * TILE_ROWS


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_nearest(codes: Tensor, latents: Tensor, codebook: Tensor, metric: str = "euclidean") -> None:
    """Codes are those of a float64 brute force, save where float32 cannot tell the two scores apart."""
    latents, codebook = latents.double(), codebook.double()
    if metric == "cosine":
        latents, codebook = F.normalize(latents, dim=1), F.normalize(codebook, dim=1)
    half_norms = codebook.square().sum(dim=1) / 2
    scores = half_norms - latents @ codebook.T  # (N, K)
    best, expected = scores.min(dim=1)
    chosen = scores.gather(1, codes.unsqueeze(1)).squeeze(1)
    largest = half_norms.max() + latents.norm(dim=1) * codebook.norm(dim=1).max()
    rounding = latents.shape[1] * torch.finfo(torch.float32).eps * largest
    assert ((codes == expected) | (chosen - best <= rounding)).all()
    assert (codes == expected).double().mean() > 0.995


# --- nearest_codes


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("count", "dim", "num_codes"),
    [
        (300, 8, 1000),
        (300, 1, 64),
        (300, 64, 1),
        (TILE_ROWS + 1, 16, 37),
        (3 * TILE_ROWS, 3, 500),
        (200, 4, TILE_CODES + 3),
        (TILE_ROWS + 40, 2, 2 * TILE_CODES + 1),
        (CHUNK_ROWS + TILE_ROWS + 9, WIDE, 70),
    ],
)
def test_the_nearest_code_is_that_of_a_brute_force_search(count: int, dim: int, num_codes: int, metric: str) -> None:
    if metric == "cosine" and dim <= 2:
        dim += 2  # on a line all directions are ties, on a circle a large codebook is too dense for float32
    latents, codebook = noise(count, dim), noise(num_codes, dim, seed=1)
    codes = nearest_codes(latents, codebook, metric)
    assert codes.dtype == torch.int64
    assert_nearest(codes, latents, codebook, metric)


def test_float64_is_searched_in_float64() -> None:
    codebook = torch.tensor([[1.0], [1.0 + 1e-6]], dtype=torch.float64)  # the scores differ by 5e-13
    assert nearest_codes(codebook, codebook).tolist() == [0, 1]


def test_the_last_code_of_the_last_tile_is_found() -> None:
    codebook = noise(2 * TILE_CODES, 4) + 10
    codebook[-1] = 0
    assert nearest_codes(torch.zeros(3, 4), codebook).tolist() == [2 * TILE_CODES - 1] * 3


def test_ties_go_to_the_lower_index() -> None:
    codebook = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    latents = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [2.0, 0.0]])
    assert nearest_codes(latents, codebook).tolist() == [0, 0, 1, 0]


def test_ties_between_tiles_go_to_the_lower_index() -> None:
    codebook = torch.full((2 * TILE_CODES + 5, 2), 100.0)
    codebook[[7, TILE_CODES - 1, TILE_CODES, 2 * TILE_CODES + 4]] = torch.tensor([3.0, 4.0])
    assert nearest_codes(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), codebook).tolist() == [7, 7]


def test_cosine_ignores_the_lengths_of_latents_and_codes() -> None:
    latents, codebook = noise(100, 8), noise(50, 8, seed=1)
    stretched = codebook * torch.logspace(-3, 3, 50).unsqueeze(1)
    codes = nearest_codes(latents, codebook, "cosine")
    assert torch.equal(nearest_codes(latents * 1000, stretched, "cosine"), codes)
    assert not torch.equal(nearest_codes(latents, stretched, "euclidean"), codes)


def test_no_latents_give_no_codes() -> None:
    codes = nearest_codes(torch.zeros(0, 8), noise(5, 8))
    assert codes.shape == (0,)
    assert codes.dtype == torch.int64


def test_strides_do_not_matter() -> None:
    latents, codebook = noise(8, 700), noise(8, 90, seed=1)
    expected = nearest_codes(latents.T.contiguous(), codebook.T.contiguous())
    assert torch.equal(nearest_codes(latents.T, codebook.T), expected)
    assert torch.equal(nearest_codes(latents.repeat_interleave(2, dim=1)[:, ::2].T, codebook.T), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_latents_are_searched_in_float32(dtype: torch.dtype) -> None:
    latents, codebook = noise(200, 8).to(dtype), noise(3000, 8, seed=1)
    assert torch.equal(nearest_codes(latents, codebook), nearest_codes(latents.float(), codebook))


def test_autocast_does_not_change_the_codes() -> None:
    latents, codebook = noise(1000, 8), noise(4096, 8, seed=1)
    expected = nearest_codes(latents, codebook)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_codes(latents, codebook), expected)


def test_the_search_leaves_no_trace_in_autograd() -> None:
    latents, codebook = noise(5, 4).requires_grad_(), noise(6, 4, seed=1).requires_grad_()
    assert not nearest_codes(latents, codebook).requires_grad
    assert latents.grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, TILE_ROWS + 3, CHUNK_ROWS + 3])
def test_a_latent_that_is_not_finite_is_refused(bad: float, row: int) -> None:
    latents = noise(CHUNK_ROWS + 10, WIDE)
    latents[row, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(latents, noise(20, WIDE, seed=1))


def test_finite_latents_whose_products_overflow_are_refused_as_too_large() -> None:
    latents = torch.full((3, 4), 3e38)
    with pytest.raises(ValueError, match=r"or values too large for torch\.float32; no nearest code exists"):
        nearest_codes(latents, torch.tensor([[10.0] * 4, [-10.0] * 4]))
    assert nearest_codes(latents.double(), torch.tensor([[10.0] * 4, [-10.0] * 4])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("length", [1e-30, 1e20])
def test_cosine_keeps_directions_of_codes_whose_squares_overflow_or_vanish(length: float) -> None:
    codebook = noise(50, 8)
    assert torch.equal(nearest_codes(codebook, codebook * length, "cosine"), torch.arange(50))


@pytest.mark.parametrize("dim", [3, WIDE])
def test_chunks_and_tiles_do_not_change_the_search(dim: int) -> None:
    count, num_codes = CHUNK_ROWS + TILE_ROWS + 1, TILE_CODES + 65
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randint(-9, 10, (num_codes, dim), generator=generator).float()
    codebook[TILE_CODES - 1] = 10  # which no other code is
    wanted = torch.arange(count) * 7 % num_codes
    codes = nearest_codes(codebook[wanted], codebook)
    assert torch.equal(codebook[codes], codebook[wanted])
    assert (codes <= wanted).all()  # of equal codes the first
    assert {0, TILE_CODES - 1} <= set(codes.tolist())
    assert (codes >= TILE_CODES).any() or dim == 3


@pytest.mark.parametrize("row", [0, TILE_CODES + 3])
def test_a_code_that_is_nan_is_refused_in_any_tile(row: int) -> None:
    codebook = noise(2 * TILE_CODES, 4)
    codebook[row] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(noise(3, 4), codebook)


@pytest.mark.parametrize(
    ("latents", "codebook", "message"),
    [
        ((3, 4), (5, 3), r"latents \(3, 4\) and codebook \(5, 3\) must be \(N, D\) and \(K, D\)"),
        ((2, 3, 4), (5, 4), r"latents \(2, 3, 4\)"),
        ((4,), (5, 4), r"latents \(4,\)"),
        ((3, 4), (4,), r"codebook \(4,\)"),
        ((3, 4), (0, 4), "the codebook has no rows"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(latents: tuple[int, ...], codebook: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_codes(torch.zeros(latents), torch.zeros(codebook))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric is 'cosin', expected euclidean, cosine or dot"):
        nearest_codes(noise(3, 4), noise(5, 4), "cosin")  # type: ignore[arg-type]


# --- codebook_statistics


def test_statistics_are_those_of_the_one_hot_product() -> None:
    latents = noise(500, 6)
    codes = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(1))
    counts, sums = codebook_statistics(latents, codes, 50)
    one_hot = F.one_hot(codes, 50).double()  # (N, K)
    assert torch.equal(counts, one_hot.sum(dim=0).float())
    torch.testing.assert_close(sums.double(), one_hot.T @ latents.double(), atol=1e-5, rtol=1e-6)
    assert torch.equal(sums[40:], torch.zeros(10, 6))


@pytest.mark.parametrize("code", [-1, 5, 10**12])
def test_statistics_refuse_codes_outside_the_codebook(code: int) -> None:
    with pytest.raises(ValueError, match=rf"codes span \[.*{code}.*\], expected \[0, 5\)"):
        codebook_statistics(noise(2, 3), torch.tensor([1, code]), 5)


@pytest.mark.parametrize(("latents", "codes"), [((4, 3), (5,)), ((4, 3), (4, 1)), ((4, 3, 1), (4,)), ((4,), (4,))])
def test_statistics_refuse_shapes_that_do_not_fit(latents: tuple[int, ...], codes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, D\) and \(N,\)"):
        codebook_statistics(torch.zeros(latents), torch.zeros(codes, dtype=torch.int64), 5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool])
def test_statistics_refuse_codes_of_another_type(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"expected torch\.int64"):
        codebook_statistics(noise(2, 3), torch.zeros(2, dtype=dtype), 5)


def test_statistics_of_nothing_are_zero() -> None:
    counts, sums = codebook_statistics(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 4)
    assert torch.equal(counts, torch.zeros(4))
    assert torch.equal(sums, torch.zeros(4, 3))


def test_bfloat16_latents_are_counted_in_float32() -> None:
    counts, sums = codebook_statistics(torch.ones(257, 1, dtype=torch.bfloat16), torch.zeros(257, dtype=torch.int64), 1)
    assert counts.tolist() == [257.0]
    assert sums.tolist() == [[257.0]]


def test_statistics_are_deterministic_and_carry_no_gradient() -> None:
    latents = noise(3000, 8).requires_grad_()
    codes = torch.randint(0, 7, (3000,), generator=torch.Generator().manual_seed(1))
    first, again = codebook_statistics(latents, codes, 7), codebook_statistics(latents, codes, 7)
    assert torch.equal(first[1], again[1])
    assert not first[1].requires_grad


# --- rotate_to


def rotation_by_formula(e: Tensor, q: Tensor) -> Tensor:
    """s (e - 2 (e.w) w + 2 (e.u) v) with u, v, w, s constants: section 4.2 of the paper, for autograd."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=1, keepdim=True)

    with torch.no_grad():
        u, v = F.normalize(e, dim=1), F.normalize(q, dim=1)
        w = F.normalize(u + v, dim=1)
        s = q.norm(dim=1, keepdim=True) / e.norm(dim=1, keepdim=True)
    return s * (e - 2 * dot(e, w) * w + 2 * dot(e, u) * v)


def gradient_of_rotation(latents: Tensor, targets: Tensor, grad: Tensor) -> Tensor:
    latents = latents.clone().requires_grad_()
    rotate_to(latents, targets).backward(grad)
    assert latents.grad is not None
    return latents.grad


def test_rotated_latents_are_the_targets_to_the_last_bit() -> None:
    latents, targets = noise(200, 8).requires_grad_(), noise(200, 8, seed=1) * 1e-3
    assert torch.equal(rotate_to(latents, targets), targets)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_rotated_gradient_is_that_of_the_formula(dtype: torch.dtype, tolerance: float) -> None:
    e, q, g = noise(100, 8, dtype=dtype), noise(100, 8, seed=1, dtype=dtype), noise(100, 8, seed=2, dtype=dtype)
    by_hand = e.clone().requires_grad_()
    value = rotation_by_formula(by_hand, q)
    torch.testing.assert_close(value, q, atol=tolerance, rtol=tolerance)
    (expected,) = torch.autograd.grad(value, by_hand, g)
    torch.testing.assert_close(gradient_of_rotation(e, q, g), expected, atol=tolerance, rtol=tolerance)


def test_the_rotation_keeps_the_angle_between_gradient_and_vector() -> None:
    e, q, g = (noise(50, 6, seed=seed, dtype=torch.float64) for seed in range(3))
    turned = gradient_of_rotation(e, q, g)
    torch.testing.assert_close(F.cosine_similarity(turned, e), F.cosine_similarity(g, q))
    torch.testing.assert_close(turned.norm(dim=1), g.norm(dim=1) * q.norm(dim=1) / e.norm(dim=1))


def test_the_rotation_sends_no_gradient_to_the_targets() -> None:
    latents, targets = noise(5, 4).requires_grad_(), noise(5, 4, seed=1).requires_grad_()
    rotate_to(latents, targets).sum().backward()
    assert targets.grad is None


def test_a_latent_at_its_target_passes_the_gradient_unchanged() -> None:
    e, g = noise(20, 8), noise(20, 8, seed=1)
    torch.testing.assert_close(gradient_of_rotation(e, e, g), g, atol=1e-6, rtol=1e-5)


def test_a_zero_latent_takes_the_gradient_as_it_is() -> None:
    g = noise(3, 8, seed=1)
    assert torch.equal(gradient_of_rotation(torch.zeros(3, 8), noise(3, 8), g), g)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
@pytest.mark.parametrize("ratio", [0.0, 1e-15, 0.9e-4, 1.1e-4, 1e-2])
def test_a_rotation_bounds_the_gradient(ratio: float, scale: float) -> None:
    e, q, g = (F.normalize(noise(30, 6, seed=seed), dim=1) for seed in range(3))
    turned = gradient_of_rotation(e * (ratio * scale), q * scale, g)
    assert turned.norm(dim=1).max() < 1e4
    if ratio < 1e-4:
        assert torch.equal(turned, g)
    else:
        torch.testing.assert_close(turned.norm(dim=1), torch.full((30,), 1 / ratio), rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e15, 1e20, 1e38])
def test_a_rotation_survives_squares_that_overflow_or_vanish(scale: float) -> None:
    e, q, g = F.normalize(noise(30, 6), dim=1), F.normalize(noise(30, 6, seed=1), dim=1), noise(30, 6, seed=2)
    expected = gradient_of_rotation(e, q, g)
    torch.testing.assert_close(gradient_of_rotation(e * scale, q * scale, g), expected, rtol=1e-4, atol=1e-4)


def test_a_zero_target_gives_a_zero_gradient() -> None:
    gradient = gradient_of_rotation(noise(3, 8), torch.zeros(3, 8), noise(3, 8, seed=1))
    assert torch.equal(gradient, torch.zeros(3, 8))


def test_exact_opposition_gives_target_and_finite_gradient() -> None:
    e = torch.tensor([[2.0, 0.0, 0.0], [0.0, -4.0, 0.0]])
    q = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 8.0, 0.0]])
    g = torch.tensor([[3.0, 5.0, -2.0], [1.0, 2.0, 3.0]])
    assert torch.equal(rotate_to(e, q), q)
    expected = torch.tensor([[-1.5, 2.5, -1.0], [2.0, -4.0, 6.0]])  # s (g - 2 (g.u) u): the reflection along e
    torch.testing.assert_close(gradient_of_rotation(e, q, g), expected)


def test_gradients_near_opposition_keep_their_length() -> None:
    e, g = noise(64, 8), noise(64, 8, seed=1)
    q = -e + 1e-6 * noise(64, 8, seed=2)
    turned = gradient_of_rotation(e, q, g)
    assert torch.isfinite(turned).all()
    torch.testing.assert_close(turned.norm(dim=1), g.norm(dim=1), atol=0, rtol=0.2)


@pytest.mark.parametrize(("latents", "targets"), [((3, 4), (5, 4)), ((3, 4), (1, 4)), ((2, 3, 4), (2, 3, 4))])
def test_a_rotation_of_other_shapes_is_refused(latents: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must both be \(N, D\)"):
        rotate_to(torch.ones(latents), torch.ones(targets))


# --- finite scalars

PRESETS = [[8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5]]
TRUNCATION_ERRS_AT = [26, 27, 38, 39, 42]  # implementations that go through a float and truncate fail here


@pytest.mark.parametrize(
    "levels", [*PRESETS, *([n] for n in TRUNCATION_ERRS_AT), *([n, 4] for n in TRUNCATION_ERRS_AT)]
)
def test_digits_and_codes_are_exact_inverses_over_the_whole_codebook(levels: list[int]) -> None:
    codes = torch.arange(math.prod(levels))
    digits = codes_to_digits(codes, levels)
    assert torch.equal(digits.amin(dim=0), torch.zeros(len(levels), dtype=torch.int64))
    assert torch.equal(digits.amax(dim=0), torch.tensor(levels) - 1)
    assert torch.equal(digits_to_codes(digits, levels), codes)


def test_the_first_dimension_varies_fastest() -> None:
    assert digits_to_codes(torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [7, 5, 4]]), [8, 6, 5]).tolist() == [
        1,
        8,
        48,
        239,
    ]
    assert codes_to_digits(torch.tensor([[1], [8], [48], [239]]), [8, 6, 5]).tolist() == [
        [[1, 0, 0]],
        [[0, 1, 0]],
        [[0, 0, 1]],
        [[7, 5, 4]],
    ]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_small_integers_are_widened_before_they_are_split(dtype: torch.dtype) -> None:
    codes = torch.tensor([0, 1, 100, 127])
    levels = [8, 8, 8, 6, 5]  # the basis reaches 3072
    assert torch.equal(codes_to_digits(codes.to(dtype), levels), codes_to_digits(codes, levels))


@pytest.mark.parametrize("level", [3, 4, 5, 8, 16, 27, 32])
def test_the_bound_rounds_to_as_many_integers_as_levels(level: int) -> None:
    sweep = torch.linspace(-12, 12, 20001).view(-1, 1)
    digits = finite_scalar_bound(sweep, level).round() + level // 2
    assert digits.unique().tolist() == list(range(level))
    assert (digits.diff(dim=0) >= 0).all()


def test_each_dimension_has_its_own_bound() -> None:
    latents, levels = noise(2, 3, 4, 5) * 3, [8, 5, 3]
    values, codes = finite_scalar_codes(latents, levels)
    bounded = torch.stack([finite_scalar_bound(latents[:, i], level) for i, level in enumerate(levels)], dim=1)
    half_widths = torch.tensor(levels).view(1, -1, 1, 1) // 2
    assert torch.equal(values, bounded.round() / half_widths)
    assert torch.equal(codes, digits_to_codes((bounded.round().long() + half_widths).movedim(1, -1), levels))


def test_rounding_passes_the_gradient_of_the_bound() -> None:
    latents, grad = noise(2, 2, 4, 5).double().requires_grad_(), noise(2, 2, 4, 5, seed=1).double()
    values, _ = finite_scalar_codes(latents, [8, 5])
    values.backward(grad)
    reference = latents.detach().clone().requires_grad_()
    bounded = torch.stack([finite_scalar_bound(reference[:, i], level) for i, level in enumerate([8, 5])], dim=1)
    (bounded / torch.tensor([4, 2]).view(1, -1, 1, 1)).backward(grad)
    torch.testing.assert_close(latents.grad, reference.grad, atol=1e-13, rtol=1e-10)


def test_the_bound_is_the_hyperbolic_tangent_to_float32() -> None:
    sweep = torch.linspace(-20, 20, 100_001)
    exact = torch.tanh(sweep.double()) * (26 * (1 - 1e-3) / 2)
    assert (finite_scalar_bound(sweep, 27) - exact).abs().max() < 2e-6


def test_positions_that_are_not_finite_have_no_code() -> None:
    latents = noise(1, 3, 1, 4)
    latents[0, 1, 0, 2], latents[0, 2, 0, 0] = math.nan, math.inf
    assert (finite_scalar_codes(latents, [5, 5, 5])[1] == -1).flatten().tolist() == [True, False, True, False]


@pytest.mark.parametrize("levels", [[2], [8, 1], [1001, 5], []])
def test_levels_that_the_bound_cannot_serve_are_refused(levels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 3 to 1000 in each dimension"):
        finite_scalar_codes(torch.zeros(1, len(levels), 2, 2), levels)
    with pytest.raises(ValueError, match="codes, at most 2\\^31 are supported"):
        finite_scalar_codes(torch.zeros(1, 4, 2, 2), [1000] * 4)


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 4), (1, 2, 4), (4,)])
def test_finite_scalars_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 2, H, W\), one for each level"):
        finite_scalar_codes(torch.zeros(shape), [5, 5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents_are_rounded_in_float32(dtype: torch.dtype) -> None:
    latents = (3 * noise(2, 2, 20, 20)).to(dtype).requires_grad_()
    values, codes = finite_scalar_codes(latents, [1000, 5])
    expected, expected_codes = finite_scalar_codes(latents.detach().float(), [1000, 5])
    assert values.dtype == torch.float32
    assert torch.equal(codes, expected_codes)
    assert torch.equal(values, expected)
    (turned,) = torch.autograd.grad(values.sum(), latents)
    assert turned.dtype == dtype
    assert turned.any()


def test_no_value_is_a_minus_zero() -> None:
    values, codes = finite_scalar_codes(torch.linspace(-3, 3, 1001).view(1, 1, 1, -1), [5])
    digits = codes_to_digits(codes, [5]).movedim(-1, 1)
    assert torch.equal(values.view(torch.int32), ((digits - 2).float() / 2).view(torch.int32))
    assert (values == 0).sum() > 50
