"""What every quantizer owes, written once over all of them; then what is particular to FSQ."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from families import NOISY, QUANTIZERS, SHARED_EMA, VQ, codes_of, make, noise, noise_for
from torch import Tensor

from imtok.quantizers import BSQ, FSQ, LFQ, GumbelQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer


def as_rows(latents: Tensor) -> Tensor:
    """(B, D, H, W) -> (N, D)."""
    return latents.movedim(1, -1).flatten(0, 2)


# --- every quantizer


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_contract_of_shapes_and_dtypes_holds(name: str) -> None:
    quantizer = make(name)
    out = quantizer(noise(2, quantizer.dim, 3, 5))
    assert out.latents.shape == (2, quantizer.code_dim, 3, 5)
    assert out.latents.dtype == torch.float32
    assert out.codes.shape == codes_of(quantizer, torch.zeros(2, 3, 5)).shape
    assert out.codes.dtype == torch.int64
    assert out.codes.min() >= 0
    assert out.codes.max() < quantizer.num_codes
    assert set(out.losses) == set(quantizer.loss_weights)
    assert all(loss.shape == () for loss in [*out.losses.values(), out.loss])
    assert quantizer.lookup(out.codes).shape == out.latents.shape


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_alone_rebuild_the_latents_to_the_last_bit(name: str) -> None:
    quantizer = make(name).eval()
    out = quantizer(noise_for(quantizer, batch=8, side=32) * 2)
    assert torch.equal(quantizer.lookup(out.codes), out.latents)
    assert len(out.codes.unique()) > 0.9 * quantizer.num_codes


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if name not in NOISY | SHARED_EMA])
def test_training_reads_the_same_latents_as_the_codes_give(name: str) -> None:
    quantizer = make(name).train()
    before = copy.deepcopy(quantizer)
    out = quantizer(noise_for(quantizer))
    assert torch.equal(before.lookup(out.codes), out.latents)


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if name not in NOISY | SHARED_EMA])
def test_training_and_evaluation_choose_the_same_codes(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer)
    assert torch.equal(quantizer.eval()(latents).codes, quantizer.train()(latents).codes)


@pytest.mark.parametrize("name", VQ)
def test_every_code_is_its_own_nearest(name: str) -> None:
    quantizer = make(name).eval()
    codes = torch.arange(quantizer.num_codes).view(1, 1, -1)
    assert torch.equal(quantizer(quantizer.lookup(codes)).codes, codes)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_autocast_around_it_changes_nothing(name: str) -> None:
    quantizer = make(name).eval()
    latents = noise_for(quantizer, side=16)
    plain = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(latents)
        assert torch.equal(quantizer.lookup(plain.codes), plain.latents)
    assert torch.equal(inside.codes, plain.codes)
    assert torch.equal(inside.latents, plain.latents)
    assert torch.equal(inside.loss, plain.loss)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_bfloat16_latents_are_quantized_in_float32(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer).bfloat16().requires_grad_()
    out = quantizer.eval()(latents)
    wide = quantizer(latents.detach().float())
    assert out.latents.dtype == torch.float32
    assert torch.equal(out.codes, wide.codes)
    assert torch.equal(out.latents, wide.latents)
    (quantizer.train()(latents).latents.sum() + out.loss).backward()
    assert latents.grad is not None
    assert latents.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("name", QUANTIZERS)
def test_float64_latents_stay_float64(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer)
    assert quantizer(latents.double()).latents.dtype == torch.float64
    quantizer = make(name).eval()
    out = quantizer(latents.double())
    assert out.latents.dtype == torch.float64
    assert torch.equal(out.codes, quantizer(latents).codes)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_looked_up_in_the_quantizers_own_precision(name: str) -> None:
    quantizer = make(name).eval()
    latents = noise_for(quantizer)
    exact, rounded = quantizer(latents.double()), quantizer.lookup(quantizer(latents.double()).codes)
    assert rounded.dtype == quantizer.dtype == torch.float32
    torch.testing.assert_close(rounded, exact.latents.float(), rtol=1e-6, atol=1e-6)
    quantizer.double()
    assert quantizer.dtype == torch.float64
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        out = quantizer(latents.to(dtype))
        looked_up = quantizer.lookup(out.codes)
        assert looked_up.dtype == out.latents.dtype == torch.float64
        assert torch.equal(looked_up, out.latents)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_cast_to_half_width_changes_no_tensor_or_code(name: str, dtype: torch.dtype) -> None:
    quantizer = make(name).train()
    quantizer.anneal(0.3)
    quantizer(noise_for(quantizer))
    cast = copy.deepcopy(quantizer).to(dtype)
    for kept, before in (
        (cast.state_dict(), quantizer.state_dict()),
        (cast.code_tensors(), quantizer.code_tensors()),
    ):
        assert all(kept[key].dtype == before[key].dtype and torch.equal(kept[key], before[key]) for key in before)
    latents = noise_for(quantizer, side=16, seed=3)
    out, expected = cast.eval()(latents), quantizer.eval()(latents)
    assert torch.equal(out.codes, expected.codes)
    assert torch.equal(out.latents, expected.latents)
    assert torch.equal(cast.lookup(out.codes), out.latents)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_evaluation_leaves_out_the_losses_that_serve_training_alone(name: str) -> None:
    quantizer = make(name).eval()
    assert set(quantizer(noise_for(quantizer)).losses) == set(quantizer.loss_weights) - {"entropy", "kl"}


def test_results_can_be_compared_and_kept_in_sets() -> None:
    quantizer = make("fsq-odd")
    out, other = (quantizer(noise_for(quantizer)) for _ in range(2))
    assert out == out
    assert out != other
    assert len({out, other}) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: VectorQuantizer(8, 16.5),
            "num_codes is 16.5, expected a valid integer, got a number with a fractional part",
        ),  # type: ignore[arg-type]
        (lambda: VectorQuantizer(math.inf, 16), "dim is inf, expected a finite number"),  # type: ignore[arg-type]
        (lambda: GumbelQuantizer(8.5, 16), "dim is 8.5, expected a valid integer"),  # type: ignore[arg-type]
        (lambda: GumbelQuantizer(8, math.nan), "num_codes is nan, expected a finite number"),  # type: ignore[arg-type]
        (lambda: GumbelQuantizer(8, 16, code_dim=2.5), "code_dim is 2.5, expected a valid integer"),  # type: ignore[arg-type]
        (lambda: LFQ(math.nan), "dim is nan, expected a finite number"),  # type: ignore[arg-type]
        (lambda: BSQ(8, entropy_group=1.5), "entropy_group is 1.5, expected a valid integer"),  # type: ignore[arg-type]
        (lambda: FSQ([5, math.inf]), "levels.1 is inf, expected a finite number"),  # type: ignore[list-item]
        (lambda: ResidualQuantizer(FSQ([5]), depth=1.5), "depth is 1.5, expected a whole number"),  # type: ignore[arg-type]
    ],
)
def test_sizes_that_are_not_whole_are_refused(build: Callable[[], Quantizer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: VectorQuantizer(8.0, 16.0),  # type: ignore[arg-type]
        lambda: GumbelQuantizer(8.0, 16.0, code_dim=6.0),  # type: ignore[arg-type]
        lambda: LFQ(8.0, entropy_group=2.0),  # type: ignore[arg-type]
        lambda: FSQ([8.0, 5.0]),  # type: ignore[list-item]
        lambda: ResidualQuantizer(FSQ([8.0, 5.0]), depth=2.0),  # type: ignore[arg-type, list-item]
    ],
)
def test_whole_sizes_that_came_as_floats_are_kept_as_integers(build: Callable[[], Quantizer]) -> None:
    quantizer = build()
    sizes = (quantizer.dim, quantizer.code_dim, quantizer.num_codes, quantizer.num_codebooks)
    assert [type(size) for size in sizes] == [int] * 4
    assert quantizer(noise_for(quantizer)).codes.dtype == torch.int64


@pytest.mark.parametrize("name", QUANTIZERS)
def test_memory_layout_does_not_matter(name: str) -> None:
    quantizer = make(name).eval()
    latents = noise_for(quantizer)
    other = quantizer(latents.contiguous(memory_format=torch.channels_last))
    assert torch.equal(other.codes, quantizer(latents).codes)
    assert torch.equal(other.latents, quantizer(latents).latents)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_an_empty_batch_has_no_codes(name: str) -> None:
    quantizer = make(name).eval()
    codes = quantizer(torch.zeros(0, quantizer.dim, 2, 3)).codes
    assert codes.shape == codes_of(quantizer, torch.zeros(0, 2, 3)).shape


@pytest.mark.parametrize("name", QUANTIZERS)
def test_evaluation_leaves_the_state_as_it_is(name: str) -> None:
    quantizer = make(name).eval()
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(noise_for(quantizer))
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_loss_is_the_weighted_sum_of_the_losses(name: str) -> None:
    quantizer = make(name)
    quantizer.loss_weights = {key: 0.3 + index for index, key in enumerate(quantizer.loss_weights)}
    out = quantizer(noise_for(quantizer))
    expected = sum(weight * out.losses[key].item() for key, weight in quantizer.loss_weights.items())
    assert out.loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_saved_state_gives_the_same_codes(name: str) -> None:
    quantizer = make(name).train()
    for step in range(3):
        quantizer(noise_for(quantizer, seed=step))
    other = make(name, seed=5)
    other.load_state_dict(quantizer.state_dict())
    latents = noise_for(quantizer, seed=9)
    assert torch.equal(other.eval()(latents).codes, quantizer.eval()(latents).codes)
    assert torch.equal(other(latents).latents, quantizer(latents).latents)


REVIVING: dict[str, Callable[[], Quantizer]] = {
    f"{name}-kmeans-revival": partial(
        QUANTIZERS[name].func,  # type: ignore[attr-defined]
        *QUANTIZERS[name].args,  # type: ignore[attr-defined]
        **QUANTIZERS[name].keywords,  # type: ignore[attr-defined]
        kmeans_start=True,
        revival_threshold=0.5,
    )
    for name in (
        "vq-euclidean-rotation-ema",
        "vq-cosine-straight_through-ema",
        "vq-euclidean-straight_through-gradient",
    )
}


@pytest.mark.parametrize("name", [*QUANTIZERS, *REVIVING])
def test_resumed_training_continues_bit_for_bit(name: str) -> None:
    def step(quantizer: Quantizer, optimizer: torch.optim.Optimizer | None, seed: int) -> Tensor:
        latents = noise_for(quantizer, seed=seed).requires_grad_()
        out = quantizer(latents)
        (out.loss + (out.latents * noise(*out.latents.shape, seed=seed + 100)).sum()).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        assert latents.grad is not None
        return torch.cat([out.latents.flatten(), latents.grad.flatten()])

    def start(seed: int) -> tuple[Quantizer, torch.optim.Optimizer | None]:
        torch.manual_seed(seed)
        quantizer = (QUANTIZERS | REVIVING)[name]().train()
        parameters = list(quantizer.parameters())
        return quantizer, torch.optim.Adam(parameters, lr=0.01) if parameters else None

    quantizer, optimizer = start(0)
    for seed in range(3):
        step(quantizer, optimizer, seed)
    saved = copy.deepcopy((quantizer.state_dict(), optimizer and optimizer.state_dict(), torch.get_rng_state()))
    unbroken = [step(quantizer, optimizer, seed) for seed in range(3, 6)]

    resumed, resumed_optimizer = start(7)
    resumed.load_state_dict(saved[0])
    if resumed_optimizer is not None and saved[1] is not None:
        resumed_optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    again = [step(resumed, resumed_optimizer, seed) for seed in range(3, 6)]
    assert all(torch.equal(one, other) for one, other in zip(unbroken, again, strict=True))
    ours, theirs = quantizer.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_latents_of_another_shape_are_refused(name: str) -> None:
    quantizer = make(name)
    for shape in [(2, quantizer.dim + 1, 4, 4), (2, quantizer.dim, 4), (quantizer.dim, 4, 4)]:
        with pytest.raises(ValueError, match=rf"expected \(B, {quantizer.dim}, H, W\)"):
            quantizer(torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*QUANTIZERS, *REVIVING])
def test_latents_that_are_not_finite_are_refused_and_change_nothing(name: str, bad: float) -> None:
    torch.manual_seed(0)
    quantizer = (QUANTIZERS | REVIVING)[name]().train()
    before = copy.deepcopy(quantizer.state_dict())
    latents = noise_for(quantizer)
    latents[1, 0, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantizer(latents)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_the_codebook_does_not_have_are_refused(name: str) -> None:
    quantizer = make(name)
    last = quantizer.num_codes - 1
    quantizer.lookup(codes_of(quantizer, torch.tensor([[[0, last]]])))
    for low, high in [(-1, 0), (0, last + 1)]:
        with pytest.raises(ValueError, match=rf"codes span \[{low}, {high}\], expected \[0, {last + 1}\)"):
            quantizer.lookup(codes_of(quantizer, torch.tensor([[[low, high]]])))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_that_are_not_integers_are_refused(name: str) -> None:
    quantizer = make(name)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match=f"codes must be integers, got {dtype}"):
            quantizer.lookup(codes_of(quantizer, torch.zeros(1, 2, 2, dtype=dtype)))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_of_another_shape_are_refused(name: str) -> None:
    quantizer = make(name)
    count = quantizer.num_codebooks
    expected = r"expected \(B, H, W\)" if count == 1 else rf"expected \(B, H, W, {count}\)"
    for shape in [(5,), (2, 5), (1, 2, 2, 1) if count == 1 else (1, 2, 2), (1, 2, 2, count + 1)]:
        with pytest.raises(ValueError, match=expected):
            quantizer.lookup(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_of_any_integer_type_are_looked_up(name: str, dtype: torch.dtype) -> None:
    quantizer = make(name)
    codes = codes_of(quantizer, torch.arange(min(quantizer.num_codes, 250)).view(1, 1, -1))
    assert torch.equal(quantizer.lookup(codes.to(dtype)), quantizer.lookup(codes))


# --- FSQ


@pytest.mark.parametrize("levels", [[8, 6, 4], [7, 5, 3], [27, 4], [3]])
def test_fsq_codes_are_distinct_and_lie_on_the_published_grid(levels: list[int]) -> None:
    quantizer = FSQ(levels)
    assert quantizer.num_codes == math.prod(levels)
    grid = as_rows(quantizer.lookup(torch.arange(quantizer.num_codes).view(1, 1, -1)))
    assert len(grid.unique(dim=0)) == quantizer.num_codes
    for axis, level in enumerate(levels):
        places = (torch.arange(level) - level // 2) / (level // 2)  # even counts span [-1, 1 - 2/L]
        assert torch.equal(grid[:, axis].unique(), places)


def test_fsq_passes_the_gradient_of_its_bound() -> None:
    quantizer = FSQ([5])
    latents = torch.tensor([-3.0, -0.4, 0.0, 0.7, 2.0]).view(1, 1, 1, 5).requires_grad_()
    quantizer(latents).latents.sum().backward()
    assert latents.grad is not None
    # codes are round(tanh(z) h) / 2 with h = 4 * 0.999 / 2
    torch.testing.assert_close(latents.grad, (1 - latents.detach().tanh() ** 2) * 1.998 / 2)


def test_fsq_reaches_its_outermost_codes_and_has_nothing_to_save() -> None:
    quantizer = FSQ([8, 5])
    out = quantizer(torch.tensor([[-30.0, 30.0], [-30.0, 30.0]]).view(1, 2, 1, 2))
    assert out.codes.tolist() == [[[0, 39]]]
    assert out.latents[0, :, 0].tolist() == [[-1.0, 0.75], [-1.0, 1.0]]
    assert quantizer.state_dict() == {}
    assert out.loss == 0


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([8, 2], r"FSQ levels are \[8, 2\], expected 3 or more"),
        ([1], "expected 3 or more"),
        ([], "tuple should have at least 1 item"),
        ([5.5, 4], "levels.0 is 5.5, expected a valid integer"),
        ([64] * 6, r"make 68719476736 codes, at most 2\^31"),
    ],
)
def test_fsq_refuses_levels_that_do_not_work(levels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FSQ(levels)
