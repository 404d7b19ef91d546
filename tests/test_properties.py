"""What holds for any input: drawn shapes, types, memory layouts, magnitudes and offsets, for kernels and quantizers."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from families import NOISY, QUANTIZERS, codes_of
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from imtok.kernels import (
    codebook_statistics,
    codes_to_digits,
    codes_to_signs,
    digits_to_codes,
    finite_scalar_bound,
    finite_scalar_codes,
    nearest_codes,
    rotate_to,
    sign_codes,
)
from imtok.kernels.finite_scalar import MOST_LEVELS
from imtok.kernels.nearest import Metric
from imtok.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    GumbelQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

NEAREST, TILES, SHORT = (
    importlib.import_module(f"imtok.kernels.{name}") for name in ("nearest", "nearest_tiles", "nearest_short")
)

# The same examples each time, so that a run says something about the change and not about the draw.
properties = settings(derandomize=True, database=None, deadline=None, max_examples=50)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
METRICS: list[Metric] = ["euclidean", "cosine", "dot"]
seeds = st.integers(0, 2**16)
sizes = st.integers(0, 5)
metrics = st.sampled_from(METRICS)
dtypes = st.sampled_from(DTYPES)
bad_values = st.sampled_from([math.nan, math.inf, -math.inf])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(seed: int, *shape: int) -> Tensor:
    """Small whole numbers: what is summed of them is exact, and many distances are equal."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


# --- memory layouts


def sliced(values: Tensor) -> Tensor:
    """Every second column of a wider tensor."""
    wide = torch.full((*values.shape[:-1], 2 * values.shape[-1]), math.nan, dtype=values.dtype)
    wide[..., ::2] = values
    return wide[..., ::2]


def part_of_channels(values: Tensor) -> Tensor:
    """The middle of a tensor with more channels."""
    wide = torch.full((values.shape[0], 3 * values.shape[1], *values.shape[2:]), math.nan, dtype=values.dtype)
    wide[:, values.shape[1] : 2 * values.shape[1]] = values
    return wide[:, values.shape[1] : 2 * values.shape[1]]


def transposed(values: Tensor) -> Tensor:
    return values.transpose(-1, -2).contiguous().transpose(-1, -2)


def batch_last(values: Tensor) -> Tensor:
    return values.movedim(0, -1).contiguous().movedim(-1, 0)


def channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


LAYOUTS = [sliced, part_of_channels, transposed, batch_last]
layouts = st.sampled_from(LAYOUTS)
grid_layouts = st.sampled_from([*LAYOUTS, channels_last])


# --- nearest_codes


def assert_nearest(codes: Tensor, latents: Tensor, codebook: Tensor, metric: Metric) -> None:
    """Codes are a float64 brute force's, save where float32 rounding of the two centred scores may turn them round."""
    latents, codebook = latents.double(), codebook.double()
    if metric == "cosine":
        codebook = F.normalize(codebook, dim=1)
    centre = codebook.median(dim=0).values if metric == "euclidean" else torch.zeros(latents.shape[1])
    latents, codebook = latents - centre, codebook - centre
    offsets = codebook.square().sum(dim=1) / 2 if metric == "euclidean" else torch.zeros(len(codebook))
    scores = offsets - latents @ codebook.T  # (N, K)
    magnitudes = codebook.square().sum(dim=1) / 2 + latents.norm(dim=1, keepdim=True) * codebook.norm(dim=1)
    rounding = (2 + latents.shape[1]) * torch.finfo(torch.float32).eps * magnitudes
    best, expected = scores.min(dim=1)
    chosen = codes.unsqueeze(1)
    allowed = rounding.gather(1, chosen) + rounding.gather(1, expected.unsqueeze(1))
    assert (scores.gather(1, chosen) - best.unsqueeze(1) <= allowed).all()


def first_nearest(latents: Tensor, codebook: Tensor, metric: Metric) -> list[int]:
    """Exact for whole numbers, the lower index of equals; numpy's argmin is the first."""
    scores = -(latents.double() @ codebook.double().T)
    if metric == "euclidean":
        scores = scores + codebook.double().square().sum(dim=1) / 2
    found: list[int] = scores.numpy().argmin(axis=1).tolist()
    return found


@properties
@given(
    count=st.integers(0, 60),
    dim=st.integers(1, 20),
    num_codes=st.integers(1, 200),
    metric=metrics,
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    distance=st.sampled_from([0.0, 10.0, 1e4]),
    outlier=st.sampled_from([0.0, 1e3, 1e6]),
    seed=seeds,
)
@example(count=50, dim=8, num_codes=150, metric="euclidean", scale=1.0, distance=1e4, outlier=1e6, seed=0)
def test_the_nearest_code_is_that_of_exact_arithmetic(
    count: int, dim: int, num_codes: int, metric: Metric, scale: float, distance: float, outlier: float, seed: int
) -> None:
    """However large or small, far from the origin, or beside one code far away."""
    away = normal(seed + 2, dim) * distance * scale
    latents, codebook = normal(seed, count, dim) * scale + away, normal(seed + 1, num_codes, dim) * scale + away
    if outlier:
        codebook[seed % num_codes] = outlier * scale
    codes = nearest_codes(latents, codebook, metric)
    assert codes.shape == (count,)
    assert codes.dtype == torch.int64
    assert ((codes >= 0) & (codes < num_codes)).all()
    assert_nearest(codes, latents, codebook, metric)


@properties
@given(
    st.integers(0, 40), st.integers(1, 6), st.integers(1, 60), st.sampled_from(["euclidean", "dot"]), seeds, st.data()
)
def test_equal_distances_go_to_the_lower_index(
    count: int, dim: int, num_codes: int, metric: Metric, seed: int, data: st.DataObject
) -> None:
    latents = whole(seed, count, dim)
    codebook = torch.cat([whole(seed + 1, num_codes, dim)] * data.draw(st.integers(1, 4)))
    codes = nearest_codes(latents, codebook, metric)
    assert codes.tolist() == first_nearest(latents, codebook, metric)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(nearest_codes(latents[order], codebook, metric), codes[order])


@properties
@given(
    count=st.integers(0, 700),
    dim=st.integers(1, 20),
    num_codes=st.integers(1, 400),
    metric=st.sampled_from(["euclidean", "dot"]),
    rows=st.integers(1, 300),
    blocks=st.integers(1, 5),
    chunk=st.integers(1, 4000),
    short=st.booleans(),
    seed=seeds,
)
def test_tiles_of_any_size_give_the_same_codes(
    count: int,
    dim: int,
    num_codes: int,
    metric: Metric,
    rows: int,
    blocks: int,
    chunk: int,
    short: bool,
    seed: int,
) -> None:
    """Both ways of searching, that of short vectors without being compiled."""
    latents, codebook = whole(seed, count, dim) + 7, whole(seed + 1, num_codes, dim) + 7
    with pytest.MonkeyPatch.context() as patch:
        for module in (TILES, SHORT):
            patch.setattr(module, "TILE_ROWS", rows)
            patch.setattr(module, "TILE_CODES", 64 * blocks)
        patch.setattr(SHORT, "_PIECE", 256 * dim * blocks)
        patch.setattr(SHORT, "_MINIMA", rows)
        patch.setattr(NEAREST, "_CHUNK", chunk)
        patch.setattr(SHORT.fused, "least_work", 0 if short else 2**60)
        patch.setattr(importlib.import_module("imtok.kernels.compiling")._compiling, "enabled", False)
        assert nearest_codes(latents, codebook, metric).tolist() == first_nearest(latents, codebook, metric)


@properties
@given(st.integers(0, 50), st.integers(2, 12), st.integers(1, 80), seeds)
def test_cosine_does_not_see_lengths(count: int, dim: int, num_codes: int, seed: int) -> None:
    latents, codebook = normal(seed, count, dim), normal(seed + 1, num_codes, dim)
    codes = nearest_codes(latents, codebook, "cosine")
    lengths = torch.exp2(whole(seed, count, 1)), torch.exp2(whole(seed + 1, num_codes, 1))  # exact
    assert torch.equal(nearest_codes(latents * lengths[0], codebook * lengths[1], "cosine"), codes)
    stretched = latents * (10 * normal(seed, count, 1)).exp2(), codebook * normal(seed + 1, num_codes, 1).exp2()
    assert_nearest(nearest_codes(*stretched, "cosine"), *stretched, "cosine")


@properties
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 150), metrics, bad_values, st.booleans(), st.data())
def test_what_is_not_finite_never_gets_an_index(
    count: int, dim: int, num_codes: int, metric: Metric, bad: float, short: bool, data: st.DataObject
) -> None:
    latents, codebook = normal(0, count, dim), normal(1, num_codes, dim)
    row, column = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, dim - 1))
    latents[row, column] = bad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHORT.fused, "least_work", 0 if short else 2**60)
        patch.setattr(importlib.import_module("imtok.kernels.compiling")._compiling, "enabled", False)
        with pytest.raises(ValueError, match="hold NaN or infinite values, or values too large"):
            nearest_codes(latents, codebook, metric)
        codebook[data.draw(st.integers(0, num_codes - 1)), column] = math.nan
        with pytest.raises(ValueError, match="hold NaN or infinite values, or values too large"):
            nearest_codes(torch.zeros(3, dim), codebook, metric)


@properties
@given(st.integers(0, 30), st.integers(1, 12), st.integers(1, 80), metrics, dtypes, dtypes, layouts, layouts, seeds)
def test_the_search_does_not_depend_on_dtype_or_layout(
    count: int,
    dim: int,
    num_codes: int,
    metric: Metric,
    dtype: torch.dtype,
    code_dtype: torch.dtype,
    layout: Callable[[Tensor], Tensor],
    code_layout: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    latents, codebook = whole(seed, count, dim), whole(seed + 1, num_codes, dim) / 4
    codebook[codebook.norm(dim=1) == 0] = 1
    codes = nearest_codes(latents, codebook, metric)
    other = nearest_codes(layout(latents.to(dtype)), code_layout(codebook.to(code_dtype)), metric)
    if metric == "cosine":  # lengths are rounded
        assert_nearest(other, latents, codebook, metric)
    else:
        assert torch.equal(other, codes)


# --- codebook_statistics


@properties
@given(st.integers(0, 80), st.integers(1, 9), st.integers(1, 30), dtypes, layouts, seeds)
def test_statistics_are_counts_and_sums(
    count: int, dim: int, num_codes: int, dtype: torch.dtype, layout: Callable[[Tensor], Tensor], seed: int
) -> None:
    latents = layout(normal(seed, count, dim).to(dtype))
    codes = torch.randint(0, num_codes, (count,), generator=torch.Generator().manual_seed(seed))
    counts, sums = codebook_statistics(latents, codes, num_codes)
    one_hot = F.one_hot(codes, num_codes).double()  # (N, K)
    assert counts.dtype == sums.dtype == torch.promote_types(dtype, torch.float32)
    assert counts.tolist() == one_hot.sum(dim=0).tolist()
    torch.testing.assert_close(sums.double(), one_hot.T @ latents.double(), atol=1e-5, rtol=1e-6)
    assert torch.equal(codebook_statistics(latents.contiguous(), codes, num_codes)[1], sums)


# --- rotate_to


def rotated_gradient(latents: Tensor, targets: Tensor, upstream: Tensor) -> Tensor:
    latents = latents.detach().requires_grad_()
    (found,) = torch.autograd.grad(rotate_to(latents, targets), latents, upstream)
    return found


@properties
@given(
    count=st.integers(0, 20),
    dim=st.integers(2, 12),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    layout=layouts,
    scale=st.sampled_from([1e-2, 1.0, 30.0]),
    seed=seeds,
)
def test_a_rotation_gives_targets_and_the_formulas_gradient(
    count: int, dim: int, dtype: torch.dtype, layout: Callable[[Tensor], Tensor], scale: float, seed: int
) -> None:
    e, q, g = (layout(normal(seed + index, count, dim).to(dtype)) for index in range(3))
    q = layout((q * scale).to(dtype))
    assert torch.equal(rotate_to(e, q), q)
    wide_e, wide_q, wide_g = e.double(), q.double(), g.double()
    u, v = F.normalize(wide_e, dim=1), F.normalize(wide_q, dim=1)
    nearness = (u + v).norm(dim=1)  # to opposition, where rounding is all
    assume((nearness > 0.05).all())
    w = F.normalize(u + v, dim=1)
    s = wide_q.norm(dim=1, keepdim=True) / wide_e.norm(dim=1, keepdim=True)
    along_w, along_v = (wide_g * w).sum(dim=1, keepdim=True), (wide_g * v).sum(dim=1, keepdim=True)
    expected = s * (wide_g - 2 * along_w * w + 2 * along_v * u)
    turned = rotated_gradient(e, q, g)
    assert turned.dtype == dtype
    errors = (turned.double() - expected).norm(dim=1)
    lengths = s.squeeze(1) * wide_g.norm(dim=1)
    assert (errors <= 16 * torch.finfo(dtype).eps / nearness * lengths).all()


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_opposite_vectors_are_reflected(dim: int) -> None:
    """In one dimension a latent and its code are opposite as often as not."""
    e, g = normal(0, 200, dim), normal(1, 200, dim)
    u = F.normalize(e, dim=1)
    expected = 3 * (g - 2 * (g * u).sum(dim=1, keepdim=True) * u)
    torch.testing.assert_close(rotated_gradient(e, -3 * e, g), expected, atol=1e-4, rtol=1e-4)


def test_a_rotation_in_float16_stays_finite() -> None:
    e, q, g = (normal(seed, 50, 8).half() for seed in range(3))
    assert torch.isfinite(rotated_gradient(200 * e, 200 * q, g)).all()


@properties
@given(
    st.integers(1, 20),
    st.integers(1, 8),
    st.sampled_from([0.0, 1e-40, 1e-20, 1.0, 1e15]),
    st.sampled_from([0.0, 1e-40, 1e-20, 1.0, 1e15]),
    seeds,
)
def test_a_rotations_gradient_is_finite_at_any_length_and_angle(
    count: int, dim: int, latent_scale: float, target_scale: float, seed: int
) -> None:
    e, g = normal(seed, count, dim) * latent_scale, normal(seed + 1, count, dim)
    for q in (normal(seed + 2, count, dim) * target_scale, -e, e, -e * (1 + 1e-6)):
        assert torch.isfinite(rotated_gradient(e, q, g)).all()


# --- finite scalars and signs

level_lists = st.lists(st.integers(3, 12), min_size=1, max_size=5)


@properties
@given(level_lists, sizes, sizes, sizes, dtypes, grid_layouts, st.sampled_from([0.1, 2.0, 100.0]), seeds)
def test_finite_scalars_are_the_rounded_bound_with_its_digits(
    levels: list[int],
    batch: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    layout: Callable[[Tensor], Tensor],
    scale: float,
    seed: int,
) -> None:
    latents = (normal(seed, batch, len(levels), height, width) * scale).to(dtype)
    values, codes = finite_scalar_codes(layout(latents), levels)
    assert values.shape == latents.shape
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    assert codes.shape == (batch, height, width)
    assert codes.dtype == torch.int64
    latents = latents.to(values.dtype)
    half_widths = torch.tensor(levels).view(1, -1, 1, 1) // 2
    rounded = [finite_scalar_bound(latents[:, index], level).round() for index, level in enumerate(levels)]
    digits = torch.stack(rounded, dim=1).long() + half_widths
    assert torch.equal(values, (digits - half_widths).to(values.dtype) / half_widths)
    assert torch.equal(codes, digits_to_codes(digits.movedim(1, -1), levels))
    assert torch.equal(codes_to_digits(codes, levels), digits.movedim(1, -1))
    assert ((codes >= 0) & (codes < math.prod(levels))).all()


@properties
@given(st.integers(3, 999), st.booleans(), seeds)
def test_a_bound_is_monotone_and_gives_all_its_levels(level: int, wide: bool, seed: int) -> None:
    dtype = torch.float64 if wide else torch.float32
    sweep = torch.cat([normal(seed, 5000) * 3, torch.linspace(-9, 9, 20001)]).sort().values.to(dtype)
    codes = finite_scalar_codes(sweep.view(1, 1, 1, -1), [level])[1].flatten()
    assert (codes.diff() >= 0).all()
    assert torch.bincount(codes, minlength=level).gt(0).tolist() == [True] * level


def test_fsq_refuses_more_levels_than_its_bound_reaches() -> None:
    ends = torch.tensor([-30.0, 30.0]).view(1, 1, 1, 2)
    assert finite_scalar_codes(ends, [1000])[1].tolist() == [[[0, 999]]]
    with pytest.raises(ValueError, match=r"levels are \[1002\], expected 3 to 1000 in each dimension"):
        finite_scalar_codes(ends, [1002])
    digits = finite_scalar_bound(ends, 1002).round() + 1002 // 2
    assert digits.flatten().tolist() == [1, 1000]  # of 0 .. 1001
    assert MOST_LEVELS == FSQ([MOST_LEVELS]).num_codes == 1000  # the record, without torch, has a copy
    with pytest.raises(ValueError, match=r"FSQ levels are \[1002, 5\], expected 1000 or fewer in each dimension"):
        FSQ([1002, 5])


@properties
@given(level_lists, bad_values, st.data())
def test_finite_scalars_mark_exactly_the_non_finite_positions(
    levels: list[int], bad: float, data: st.DataObject
) -> None:
    latents = normal(0, 2, len(levels), 3, 4)
    place = [data.draw(st.integers(0, size - 1)) for size in latents.shape]
    latents[tuple(place)] = bad
    missing = (finite_scalar_codes(latents, levels)[1] < 0).nonzero().tolist()
    assert missing == [[place[0], *place[2:]]]


@properties
@given(level_lists, st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]), seeds)
def test_codes_and_digits_are_inverses_in_any_integer_type(levels: list[int], dtype: torch.dtype, seed: int) -> None:
    top = min(math.prod(levels), torch.iinfo(dtype).max + 1)
    codes = torch.randint(0, top, (50,), generator=torch.Generator().manual_seed(seed))
    digits = codes_to_digits(codes.to(dtype), levels)
    assert ((digits >= 0) & (digits < torch.tensor(levels))).all()
    assert torch.equal(digits_to_codes(digits.to(dtype), levels), codes)


@properties
@given(st.integers(1, 31), sizes, sizes, sizes, dtypes, grid_layouts, seeds)
def test_sign_codes_are_the_bits_of_the_signs(
    dim: int,
    batch: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    layout: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    latents = whole(seed, batch, dim, height, width).to(dtype)  # zeros too
    signs, codes = sign_codes(layout(latents))
    assert torch.equal(signs, torch.where(latents > 0, 1, -1).to(dtype))
    assert signs.dtype == dtype
    assert codes.shape == (batch, height, width)
    assert ((codes >= 0) & (codes < 2**dim)).all()
    assert torch.equal(codes_to_signs(codes, dim), signs.float())


# --- quantizers

KINDS = {
    name: QUANTIZERS[name]
    for name in (
        "vq-euclidean-rotation-ema",
        "vq-cosine-straight_through-gradient",
        "vq-euclidean-rotation-projection",
        "vq-cosine-straight_through-frozen",
        "vq-clustering-gradient",
        "index-propagation-entropy",
        "fsq-mixed",
        "lfq",
        "bsq",
        "gumbel",
        "residual-vq",
        "product-vq",
    )
}
ONE: dict[str, Callable[[], Quantizer]] = {
    "vq-one-ema": lambda: VectorQuantizer(1, 1, estimator="rotation"),
    "vq-one-cosine": lambda: VectorQuantizer(1, 1, metric="cosine", estimator="rotation", codebook_update="gradient"),
    "vq-one-projection": lambda: VectorQuantizer(1, 1, codebook_update="projection"),
    "index-propagation-one": lambda: VectorQuantizer(
        1, 1, metric="dot", estimator="index_propagation", codebook_update="gradient"
    ),
    "vq-one-code": lambda: VectorQuantizer(3, 1, estimator="rotation", revival_threshold=0.5),
    "fsq-one": lambda: FSQ([3]),
    "lfq-one": lambda: LFQ(1),
    "bsq-one": lambda: BSQ(1),
    "gumbel-one": lambda: GumbelQuantizer(1, 1),
    "residual-one": lambda: ResidualQuantizer([VectorQuantizer(1, 1), VectorQuantizer(1, 1)]),
    "product-one": lambda: ProductQuantizer([VectorQuantizer(1, 1), VectorQuantizer(1, 1)]),
}
KINDS |= ONE


def make(name: str) -> Quantizer:
    torch.manual_seed(0)
    return KINDS[name]()


def unchanged(quantizer: Quantizer, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


few = settings(properties, max_examples=25)
side = st.integers(0, 4)
scales = st.sampled_from([1e-3, 1.0, 50.0])


@pytest.mark.parametrize("name", KINDS)
@few
@given(batch=st.integers(0, 3), height=side, width=side, dtype=dtypes, layout=grid_layouts, scale=scales, seed=seeds)
def test_any_latents_have_codes_that_rebuild_them(
    name: str,
    batch: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    layout: Callable[[Tensor], Tensor],
    scale: float,
    seed: int,
) -> None:
    quantizer = make(name).eval()
    before = copy.deepcopy(quantizer.state_dict())
    latents = (normal(seed, batch, quantizer.dim, height, width) * scale).to(dtype)
    out = quantizer(latents)
    assert out.codes.shape == codes_of(quantizer, torch.zeros(batch, height, width)).shape
    assert out.codes.dtype == torch.int64
    assert ((out.codes >= 0) & (out.codes < quantizer.num_codes)).all()
    assert out.latents.dtype == torch.promote_types(dtype, torch.float32)
    assert out.latents.shape == (batch, quantizer.code_dim, height, width)
    rebuilt = quantizer.lookup(out.codes)
    # Tables are float32; a sum of float64 stages may be nearer than their float32 sum.
    torch.testing.assert_close(
        rebuilt.to(out.latents.dtype), out.latents, atol=1e-6 if dtype == torch.float64 else 0, rtol=0
    )
    assert all(torch.isfinite(loss) for loss in [*out.losses.values(), out.loss])
    if latents.numel() == 0:
        assert all(loss == 0 for loss in [*out.losses.values(), out.loss])
    other = quantizer(layout(latents))
    assert torch.equal(other.codes, out.codes)
    assert torch.equal(other.latents, out.latents)
    torch.testing.assert_close(other.loss, out.loss, atol=1e-5, rtol=1e-5)
    assert unchanged(quantizer, before)


@pytest.mark.parametrize("name", KINDS)
@few
@given(bad=bad_values, dtype=dtypes, training=st.booleans(), data=st.data())
def test_latents_with_one_bad_value_are_refused_and_nothing_changes(
    name: str, bad: float, dtype: torch.dtype, training: bool, data: st.DataObject
) -> None:
    quantizer = make(name).train(training)
    before = copy.deepcopy(quantizer.state_dict())
    latents = normal(0, 2, quantizer.dim, 2, 3).to(dtype)
    latents[tuple(data.draw(st.integers(0, size - 1)) for size in latents.shape)] = bad
    with pytest.raises(ValueError, match=r"hold NaN or infinite values.*; no (nearest )?code exists"):
        quantizer(latents)
    assert unchanged(quantizer, before)


@pytest.mark.parametrize("name", KINDS)
@settings(properties, max_examples=10)
@given(batches=st.lists(st.integers(0, 3), min_size=1, max_size=4), dtype=dtypes, layout=grid_layouts, scale=scales)
def test_training_stays_finite_and_learns_nothing_from_no_images(
    name: str, batches: list[int], dtype: torch.dtype, layout: Callable[[Tensor], Tensor], scale: float
) -> None:
    quantizer = make(name).train()
    for step, batch in enumerate(batches):
        before = copy.deepcopy(quantizer.state_dict())
        latents = layout((normal(step, batch, quantizer.dim, 2, 3) * scale).to(dtype)).requires_grad_()
        out = quantizer(latents)
        (gradient,) = torch.autograd.grad(out.loss + out.latents.sum(), latents)
        assert gradient.shape == latents.shape
        assert torch.isfinite(gradient).all()
        assert all(torch.isfinite(value).all() for value in quantizer.state_dict().values())
        if batch == 0:
            assert out.loss == 0
            assert unchanged(quantizer, before)
        elif name not in NOISY:
            assert torch.isfinite(out.latents).all()


@pytest.mark.parametrize("name", KINDS)
@few
@given(seed=seeds, height=side, width=side)
def test_expanded_latents_are_quantized_as_copies_are(name: str, seed: int, height: int, width: int) -> None:
    quantizer = make(name).eval()
    expanded = normal(seed, 1, quantizer.dim, 1, width).expand(3, -1, height, -1)
    out, copied = quantizer(expanded), quantizer(expanded.contiguous())
    assert torch.equal(out.codes, copied.codes)
    assert torch.equal(out.latents, copied.latents)
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


def test_bsq_reads_the_signs_of_latents_of_any_length() -> None:
    latents = normal(0, 1, 4, 3, 3) * 1e20
    assert torch.equal(BSQ(4).eval()(latents).codes, sign_codes(latents)[1])


@pytest.mark.parametrize("name", ONE)
def test_one_code_or_one_dimension_is_enough(name: str) -> None:
    quantizer = make(name).eval()
    everything = codes_of(quantizer, torch.arange(quantizer.num_codes).view(1, 1, -1))
    assert torch.isfinite(quantizer.lookup(everything)).all()
    out = quantizer(torch.linspace(-3, 3, 50 * quantizer.dim).view(1, quantizer.dim, 5, 10))
    assert len(out.codes.unique()) == quantizer.num_codes
    assert torch.equal(quantizer.lookup(out.codes), out.latents)
