"""What is particular to residual and product quantizers; what they share with all is in test_quantizers.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import NOISY, QUANTIZERS, make, noise, noise_for
from safetensors.torch import load, save
from torch import Tensor

from imtok.kernels import rotate_to
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
from imtok.quantizers.base import to_grid, to_rows
from imtok.quantizers.composite import CompositeQuantizer

COMPOSITES = [name for name in QUANTIZERS if name.startswith(("residual", "product"))]


def vq(dim: int = 4, codes: int = 24, *, seed: int = 0, length: float = 1.0, **options: Any) -> VectorQuantizer:
    """A quantizer of its own random codebook, whose codes have about the given length."""
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(dim, codes, **options)
    quantizer.codebook.data.mul_(length)
    return quantizer


def falling(stages: int = 4, **options: Any) -> list[VectorQuantizer]:
    """Stages whose codes halve in length."""
    return [vq(seed=stage, length=0.5**stage, **options) for stage in range(stages)]


def make_composite(name: str) -> CompositeQuantizer:
    quantizer = make(name)
    assert isinstance(quantizer, CompositeQuantizer)
    return quantizer


def gradient(of: Tensor, to: Tensor) -> Tensor:
    return torch.autograd.grad(of, to)[0]


# --- both


@pytest.mark.parametrize("name", [*COMPOSITES, *(name for name in QUANTIZERS if name.startswith("gumbel"))])
def test_looked_up_latents_have_the_forward_pass_memory_layout(name: str) -> None:
    """A convolution's last bits depend on it."""
    quantizer = make(name).eval()
    out = quantizer(noise(2, quantizer.dim, 3, 5))
    assert quantizer.lookup(out.codes).stride() == out.latents.stride()


@pytest.mark.parametrize("name", [*COMPOSITES, *(name for name in QUANTIZERS if name.startswith("gumbel"))])
def test_half_width_weights_give_the_latents_to_the_last_bit(name: str) -> None:
    quantizer = make(name).bfloat16().eval()
    out = quantizer(noise_for(quantizer))
    assert out.latents.dtype == torch.float32
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


@pytest.mark.parametrize("name", [name for name in COMPOSITES if name not in NOISY])
def test_the_loss_is_the_mean_of_the_parts_losses(name: str) -> None:
    quantizer = make_composite(name).eval()
    losses: list[float] = []
    for part in quantizer.parts:
        part.register_forward_hook(lambda _module, _inputs, out: losses.append(out.loss.item()))
    out = quantizer(noise_for(quantizer))
    assert out.loss.item() == pytest.approx(sum(losses) / len(losses))


def test_a_part_without_a_loss_counts_as_zero_there() -> None:
    stages = [vq(codebook_update="ema"), vq(codebook_update="gradient")]
    quantizer, latents = ResidualQuantizer(stages).eval(), noise(2, 4, 3, 3)
    out = quantizer(latents)
    residual = latents - stages[0](latents).latents
    assert out.losses["codebook"].item() == pytest.approx(stages[1](residual).losses["codebook"].item() / 2)
    assert quantizer.loss_weights == {"commitment": 0.25, "codebook": 1.0}


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_state_goes_through_safetensors_and_holds_each_codebook_once(name: str) -> None:
    quantizer = make(name)
    state = quantizer.state_dict()
    pointers = [value.data_ptr() for value in state.values()]
    assert len(set(pointers)) == len(pointers)
    other = make(name, seed=3).eval()
    other.load_state_dict(load(save({key: value.contiguous() for key, value in state.items()})))
    latents = noise_for(quantizer)
    assert torch.equal(other(latents).codes, quantizer.eval()(latents).codes)


def test_what_decides_the_codes_names_every_part_once() -> None:
    assert set(make("residual-vq").code_tensors()) == {f"parts.{part}.codebook" for part in range(3)} | {"scales"}
    assert set(make("product-shared").code_tensors()) == {"parts.0.codebook"}
    assert set(make("product-of-residuals").code_tensors()) == {
        f"parts.{part}.{name}" for part in range(2) for name in ("parts.0.codebook", "scales")
    }


def test_the_point_of_the_run_reaches_every_part() -> None:
    gumbels = [GumbelQuantizer(4, 8) for _ in range(3)]
    quantizer = ProductQuantizer(
        [ResidualQuantizer(gumbels[:2]), ResidualQuantizer(gumbels[2], depth=2)],
    )
    quantizer.anneal(0.5)
    assert [gumbel.progress.item() for gumbel in gumbels] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("build", [ResidualQuantizer, ProductQuantizer])
def test_bad_latents_late_in_line_change_no_part(build: Callable[[Any], Quantizer]) -> None:
    quantizer = build([vq(seed=0), vq(seed=1)]).train()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    latents = noise_for(quantizer)
    latents[-1, -1, -1, -1] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantizer(latents)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", COMPOSITES)
def test_an_empty_batch_has_losses_of_zero(name: str) -> None:
    quantizer = make(name).train()
    out = quantizer(torch.zeros(0, quantizer.dim, 2, 3))
    assert out.latents.shape == (0, quantizer.code_dim, 2, 3)
    assert out.loss.item() == 0
    assert all(loss.item() == 0 for loss in out.losses.values())


@pytest.mark.parametrize("build", [ResidualQuantizer, ProductQuantizer])
def test_one_code_in_one_dimension_is_no_trouble(build: Callable[[Any], Quantizer]) -> None:
    quantizer = build([vq(1, 1, seed=0), vq(1, 1, seed=1)]).eval()
    out = quantizer(noise_for(quantizer))
    assert out.codes.shape == (2, 4, 4, 2)
    assert out.codes.max() == 0
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


# --- residual: codes


def test_each_stage_describes_what_the_ones_before_it_missed() -> None:
    stages = falling()
    quantizer, latents = ResidualQuantizer(stages).eval(), noise(2, 4, 5, 5)
    out = quantizer(latents)
    described = torch.zeros_like(latents)
    errors = []
    for index, stage in enumerate(stages):
        found = stage(latents - described)
        assert torch.equal(out.codes[..., index], found.codes)
        described = described + found.latents
        assert torch.equal(quantizer.lookup(out.codes[..., : index + 1]), described)
        errors.append(F.mse_loss(described, latents).item())
    assert torch.equal(out.latents, described)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]
    assert out.losses["commitment"].item() == pytest.approx(sum(errors) / len(errors))


def test_one_stage_is_the_quantizer_itself() -> None:
    stage = vq(codebook_update="gradient").eval()
    out, alone = ResidualQuantizer([stage]).eval()(noise(2, 4, 3, 3)), stage(noise(2, 4, 3, 3))
    assert out.codes.shape == (2, 3, 3)
    assert torch.equal(out.codes, alone.codes)
    assert torch.equal(out.latents, alone.latents)
    assert torch.equal(out.loss, alone.loss)


def test_a_scale_is_a_codebook_that_much_longer() -> None:
    stages = falling(3)
    latents = noise(2, 4, 5, 5)
    plain = ResidualQuantizer(stages).eval()(latents)
    rows: list[float | list[float]] = [1.0, 0.5, [0.25, 0.25, 0.25, 0.25]]
    same_lengths = [vq(seed=stage) for stage in range(3)]
    scaled = ResidualQuantizer(same_lengths, scales=rows).eval()(latents)
    assert torch.equal(scaled.codes, plain.codes)
    assert torch.equal(scaled.latents, plain.latents)  # powers of two, so to the last bit


def test_falling_scales_let_fsq_describe_ever_finer_differences() -> None:
    levels = [5, 5]
    latents = 0.9 * noise(4, 2, 8, 8).clamp(-1, 1)
    fine = ResidualQuantizer(FSQ(levels), depth=3)
    codes = fine(latents).codes
    errors = [F.mse_loss(fine.lookup(codes[..., :count]), latents).item() for count in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    for ratio in (1.0, 1 / 5):
        other = ResidualQuantizer(FSQ(levels), depth=3, scales=[ratio**stage for stage in range(3)])
        assert errors[2] < 0.2 * F.mse_loss(other(latents).latents, latents).item()


def test_scales_suit_the_stages_unless_they_are_given() -> None:
    def scales(stage: Quantizer) -> list[float]:
        table = ResidualQuantizer(stage, depth=3).scales
        assert torch.equal(table, table[:, :1].expand(3, stage.dim))
        return table[:, 0].tolist()

    assert scales(vq()) == scales(GumbelQuantizer(3, 8)) == [1, 1, 1]
    for stage in (FSQ([8, 4]), LFQ(4), BSQ(4), vq(metric="cosine"), ProductQuantizer(LFQ(2), num_heads=2)):
        assert scales(stage) == [1, 1 / 2, 1 / 4]
    assert scales(ResidualQuantizer(LFQ(4), depth=2)) == [1, 1 / 4, 1 / 16]
    assert ResidualQuantizer([LFQ(4), vq(4, 16), LFQ(4)]).scales[:, 0].tolist() == [1, 1 / 2, 1 / 2]


def test_a_coarser_picture_needs_whole_stages() -> None:
    quantizer = make_composite("residual-of-products").eval()
    codes = quantizer(noise_for(quantizer)).codes
    first = quantizer.uses[0].lookup(codes[..., :2])
    assert torch.equal(quantizer.lookup(codes[..., :2]), first)
    for count in (0, 1, 3):
        with pytest.raises(ValueError, match=rf"4, {count}\), expected \(B, H, W, 4\), or 2 of them for a coarser"):
            quantizer.lookup(codes[..., :count])


def test_a_shared_codebook_of_moving_averages_learns_once_a_stage() -> None:
    shared, alone = vq(decay=0.5), vq(decay=0.5)
    quantizer, latents = ResidualQuantizer(shared, depth=3).train(), noise(4, 4, 5, 5)
    out = quantizer(latents)
    described = torch.zeros_like(latents)
    for index in range(3):
        found = alone(latents - described)
        assert torch.equal(out.codes[..., index], found.codes)
        described = described + found.latents
    assert torch.equal(shared.codebook, alone.codebook)
    assert torch.equal(out.latents, described)
    assert not torch.equal(shared.codebook, vq().codebook)


# --- residual: gradients


def test_each_stages_commitment_draws_latents_to_the_sum_so_far() -> None:
    quantizer = ResidualQuantizer(falling(codebook_update="gradient")).eval()
    latents = noise(2, 4, 5, 5).requires_grad_()
    out = quantizer(latents)
    out.losses["commitment"].backward()
    sums = [quantizer.lookup(out.codes[..., :count]).detach() for count in range(1, 5)]
    expected = torch.stack([2 * (latents.detach() - described) for described in sums]).mean(dim=0) / latents.numel()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, expected)
    assert all(parameter.grad is None for parameter in quantizer.parameters())


def test_every_codebook_learns_from_its_own_stages_loss_alone() -> None:
    stages = falling(3, codebook_update="gradient")
    quantizer = ResidualQuantizer(stages).eval()
    latents = noise(2, 4, 5, 5).requires_grad_()
    out = quantizer(latents)
    out.losses["codebook"].backward()
    assert latents.grad is None
    described = torch.zeros_like(latents).detach()
    for index, stage in enumerate(stages):
        codes, residual = out.codes[..., index], latents.detach() - described
        pull = torch.zeros_like(stage.codebook)
        pull.index_add_(0, codes.flatten(), to_rows(stage.lookup(codes) - residual).detach())
        torch.testing.assert_close(stage.codebook.grad, 2 * pull / latents.numel() / 3)
        described = described + stage.lookup(codes).detach()


@pytest.mark.parametrize("scales", [None, [3.0, 0.3, 0.1, 0.7]])
def test_straight_through_stages_pass_the_gradient_exactly_once(scales: list[float] | None) -> None:
    quantizer = ResidualQuantizer(falling(codebook_update="gradient"), scales=scales)
    latents, grad = noise(2, 4, 5, 5).requires_grad_(), noise(2, 4, 5, 5, seed=2)
    (quantizer(latents).latents * grad).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, grad)
    assert all(parameter.grad is None for parameter in quantizer.parameters())


def test_other_estimators_pass_the_mean_over_their_stages() -> None:
    stages = falling(estimator="rotation")
    quantizer = ResidualQuantizer(stages).eval()
    latents, grad = noise(2, 4, 5, 5).requires_grad_(), noise(2, 4, 5, 5, seed=2)
    out = quantizer(latents)
    found = gradient((out.latents * grad).sum(), latents)
    expected, described = torch.zeros_like(latents), torch.zeros_like(latents)
    for index, stage in enumerate(stages):
        residual = (latents - described).detach().requires_grad_()
        codes = stage.lookup(out.codes[..., index])
        turned = to_grid(rotate_to(to_rows(residual), to_rows(codes)), latents)
        expected += gradient((turned * grad).sum(), residual) / 4
        described = described + codes
    torch.testing.assert_close(found, expected)


# --- residual: quantizer dropout


def dropping(probability: float) -> ResidualQuantizer:
    stages = falling(codebook_update="gradient")
    return ResidualQuantizer(stages, quantizer_dropout=probability).train()


def depths_of(quantizer: ResidualQuantizer, out: Any) -> Tensor:
    """The number of stages that describe each image: (B,); fails where there is an image that none does."""
    pictures = [quantizer.lookup(out.codes[..., :count]) for count in range(1, quantizer.depth + 1)]
    same = torch.stack([(picture == out.latents).flatten(1).all(dim=1) for picture in pictures])  # (Q, B)
    assert (same.sum(dim=0) == 1).all()
    return same.long().argmax(dim=0) + 1


@pytest.mark.parametrize(("probability", "full"), [(1.0, 0.25), (0.4, 0.7), (0.0, 1.0)])
def test_dropout_describes_images_by_their_first_stages(probability: float, full: float) -> None:
    torch.manual_seed(0)
    quantizer = dropping(probability)
    latents = noise(2000, 4, 2, 2)
    out = quantizer(latents)
    shares = depths_of(quantizer, out).bincount(minlength=5)[1:] / len(latents)
    expected = torch.tensor([(1 - full) / 3] * 3 + [full])
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)
    assert torch.equal(out.codes, quantizer.eval()(latents).codes)


def test_evaluation_uses_all_stages() -> None:
    quantizer = dropping(1.0).eval()
    out = quantizer(noise(20, 4, 3, 3))
    assert (depths_of(quantizer, out) == 4).all()


def test_dropout_changes_neither_losses_nor_gradient_size() -> None:
    latents, grad = noise(20, 4, 3, 3).requires_grad_(), noise(20, 4, 3, 3, seed=2)
    out = dropping(1.0)(latents)
    assert torch.equal(out.loss, dropping(0.0)(latents).loss)
    torch.testing.assert_close(gradient((out.latents * grad).sum(), latents), grad)


def test_dropped_stages_get_none_of_an_images_gradient() -> None:
    torch.manual_seed(0)
    gumbels = [GumbelQuantizer(4, 8) for _ in range(3)]
    quantizer = ResidualQuantizer(gumbels, quantizer_dropout=1.0)
    codebooks = [gumbel.codebook for gumbel in gumbels]
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        out = quantizer(noise(1, 4, 2, 2))
        depth = int(depths_of(quantizer, out))
        grads = torch.autograd.grad(out.latents.sum(), codebooks)
        assert [bool(grad.any()) for grad in grads] == [index < depth for index in range(3)]
        # Four positions, each with a gradient of ones, shared among the stages that describe it.
        assert grads[0].sum().item() == pytest.approx(4 * 4 / depth)
        seen.add(depth)
    assert seen == {1, 2, 3}


def test_no_dropout_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    quantizer = dropping(0.0)
    before = torch.get_rng_state()
    quantizer(noise_for(quantizer))
    assert torch.equal(torch.get_rng_state(), before)


# --- product


def test_every_head_sees_its_own_channels_in_order() -> None:
    heads = [vq(2, seed=seed) for seed in range(3)]
    quantizer, latents = ProductQuantizer(heads).eval(), noise(2, 6, 4, 4)
    out = quantizer(latents)
    for index, head in enumerate(heads):
        part = head(latents[:, 2 * index : 2 * index + 2])
        assert torch.equal(out.codes[..., index], part.codes)
        assert torch.equal(out.latents[:, 2 * index : 2 * index + 2], part.latents)


def test_a_heads_gradient_reaches_its_own_channels_alone() -> None:
    quantizer = ProductQuantizer([vq(2, seed=seed, codebook_update="gradient") for seed in range(2)])
    latents = noise(2, 4, 4, 4).requires_grad_()
    out = quantizer(latents)
    found = gradient(out.latents[:, :2].sum(), latents)
    assert torch.equal(found[:, :2], torch.ones(2, 2, 4, 4))
    assert torch.equal(found[:, 2:], torch.zeros(2, 2, 4, 4))


def test_a_products_commitment_is_the_mean_over_all_channels() -> None:
    quantizer = make("product-vq")
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    codes = quantizer.lookup(out.codes).detach()
    assert out.losses["commitment"].item() == pytest.approx(F.mse_loss(latents, codes).item())
    found = gradient(out.losses["commitment"], latents)
    torch.testing.assert_close(found, 2 * (latents.detach() - codes) / latents.numel())


def test_a_product_may_give_other_channels_than_it_takes() -> None:
    quantizer = ProductQuantizer([GumbelQuantizer(3, 8, code_dim=5) for _ in range(2)]).eval()
    assert (quantizer.dim, quantizer.code_dim) == (6, 10)
    out = quantizer(noise_for(quantizer))
    assert out.latents.shape == (2, 10, 4, 4)
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


def test_nested_codes_stand_part_after_part() -> None:
    quantizer = make_composite("product-of-residuals").eval()
    latents = noise_for(quantizer)
    out = quantizer(latents)
    assert (quantizer.num_codebooks, quantizer.dim) == (4, 4)
    for index, residual in enumerate(quantizer.uses):
        part = residual(latents[:, 2 * index : 2 * index + 2])
        assert torch.equal(out.codes[..., 2 * index : 2 * index + 2], part.codes)


# --- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResidualQuantizer(vq()), "depth is None; one stage given alone is shared, so say how often"),
        (lambda: ResidualQuantizer(vq(), depth=0), "depth is 0; one stage"),
        (lambda: ResidualQuantizer(falling(), depth=4), "depth is 4 beside a list of 4 stages; leave it out"),
        (lambda: ResidualQuantizer([]), "there are no stages, expected 1 or more"),
        (lambda: ResidualQuantizer([vq()] * 2), "stands in the list of stages twice.*give it alone with depth"),
        (lambda: ResidualQuantizer([vq(4, 24), vq(4, 16)]), r"the stages have num_codes \[24, 16\], expected the same"),
        (lambda: ResidualQuantizer([vq(4), vq(3)]), r"the stages have dim \[4, 3\]"),
        (lambda: ResidualQuantizer(GumbelQuantizer(4, 8, code_dim=5), depth=2), "take 4 channels and give 5: no resid"),
        (
            lambda: ResidualQuantizer([vq(commitment_weight=0.25), vq(commitment_weight=1.0)]),
            "the stages weigh the commitment loss by 0.25 and 1.0",
        ),
        (lambda: ResidualQuantizer(falling(), quantizer_dropout=1.5), r"quantizer_dropout is 1.5, expected \[0, 1\]"),
        (lambda: ResidualQuantizer(falling(), quantizer_dropout=math.nan), "quantizer_dropout is nan"),
        (lambda: ResidualQuantizer(falling(), scales=[1.0, 0.5]), "there are 2 scales for 4 stages"),
        (lambda: ResidualQuantizer(falling(2), scales=[1.0, (1.0, 2.0)]), r"scales have \[4, 2\] numbers a stage"),
        (lambda: ResidualQuantizer(falling(2), scales=[1.0, 0.0]), "expected finite numbers above 0"),
        (lambda: ResidualQuantizer(falling(2), scales=[1.0, math.inf]), "expected finite numbers above 0"),
        (lambda: ProductQuantizer(vq()), "num_heads is None; one head given alone"),
        (lambda: ProductQuantizer([]), "there are no heads"),
        (lambda: ProductQuantizer([vq(2), vq(3)]), r"the heads have dim \[2, 3\], expected the same in all"),
        (lambda: ProductQuantizer([vq(2, 24), vq(2, 25)]), r"the heads have num_codes \[24, 25\]"),
        (
            lambda: ProductQuantizer([GumbelQuantizer(2, 8), GumbelQuantizer(2, 8, code_dim=3)]),
            r"the heads have code_dim \[2, 3\]",
        ),
    ],
)
def test_unsafe_combinations_are_refused_with_the_reason(build: Callable[[], Quantizer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
