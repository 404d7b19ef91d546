"""What is particular to LFQ and BSQ; what every quantizer owes is in test_quantizers.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import noise
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from imtok.kernels import (
    codes_to_signs,
    join_bits,
    reverse_bits,
    sign_codes,
    sign_entropies,
    split_bits,
    to_sphere,
)
from imtok.quantizer_config import LFQConfig
from imtok.quantizers import BSQ, LFQ

KINDS = [LFQ, BSQ]
Kind = type[LFQ | BSQ]


def column(*values: float) -> Tensor:
    """One latent: (1, D, 1, 1)."""
    return torch.tensor(values).view(1, -1, 1, 1)


def places(rows: list[list[float]]) -> Tensor:
    """(N, D) -> (1, D, 1, N)."""
    return torch.tensor(rows).T[None, :, None, :]


def gradient(value: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, of, retain_graph=True)  # both entropies come of one graph
    return found


# --- signs and codes


def test_dimension_0_is_the_most_significant_bit() -> None:
    latents = places([[0.5, -2.0, -0.1], [-0.5, -2.0, 0.1], [3.0, 2.0, -1.0]])
    signs, codes = sign_codes(latents)
    assert codes.flatten().tolist() == [0b100, 0b001, 0b110]
    assert signs[0, :, 0].T.tolist() == [[1, -1, -1], [-1, -1, 1], [1, 1, -1]]
    assert LFQ(3)(latents).codes.flatten().tolist() == [0b100, 0b001, 0b110]


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_the_first_dimension_may_be_the_least_significant_bit(kind: Kind) -> None:
    latents = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    usual, other = kind(5).eval(), kind(5, first_bit="least significant").eval()
    codes = other(latents).codes
    assert torch.equal(codes, ((latents > 0) * 2 ** torch.arange(5).view(1, -1, 1, 1)).sum(dim=1))
    assert torch.equal(codes, reverse_bits(usual(latents).codes, 5))
    assert torch.equal(other.lookup(codes), usual(latents).latents)


def test_the_order_of_bits_is_an_identity_of_its_own() -> None:
    usual, other = LFQConfig(dim=3), LFQConfig(dim=3, first_bit="least significant")
    assert usual.code_identity() == {"kind": "lfq", "dim": 3}  # as tokenizers before there was a choice have it
    assert other.code_identity() == {"kind": "lfq", "dim": 3, "first_bit": "least significant"}
    counts = torch.tensor([0, 5, 0, 0, 2, 0, 0, 0])  # codes 1 and 4
    assert [each.tolist() for each in usual.counts_by_dimension(counts)] == [[5, 2], [7, 0], [2, 5]]
    assert [each.tolist() for each in other.counts_by_dimension(counts)] == [[2, 5], [7, 0], [5, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_on_the_side_of_minus_one(kind: Kind) -> None:
    out = kind(4)(column(0.0, -0.0, 1e-30, -1e-30))
    assert out.codes.item() == 0b0010
    assert (out.latents > 0).flatten().tolist() == [False, False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_is_its_own_code(kind: Kind) -> None:
    quantizer = kind(10).eval()
    codes = torch.arange(2**10).view(1, 32, 32)
    latents = quantizer.lookup(codes)
    out = quantizer(latents)
    assert torch.equal(out.codes, codes)
    assert torch.equal(out.latents, latents)


@pytest.mark.parametrize("kind", KINDS)
def test_31_dimensions_reach_the_first_and_the_last_code(kind: Kind) -> None:
    quantizer = kind(31).eval()
    codes = torch.randint(2**31, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    codes[0, 0, 0], codes[0, 0, 1] = 0, 2**31 - 1
    out = quantizer(quantizer.lookup(codes))
    assert torch.equal(out.codes, codes)
    assert math.isfinite(out.loss.item())


@pytest.mark.parametrize("dim", [1, 2, 5, 18])
def test_lfq_codes_are_signs_and_bsq_codes_have_unit_length(dim: int) -> None:
    latents = noise(2, dim, 4, 4)
    assert LFQ(dim)(latents).latents.abs().eq(1).all()
    lengths = BSQ(dim)(latents).latents.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_strides_do_not_matter(kind: Kind) -> None:
    latents = noise(2, 6, 4, 8)
    strided = torch.empty(2, 12, 4, 16)[:, ::2, :, ::2].copy_(latents)
    assert not strided.is_contiguous()
    quantizer = kind(6).eval()
    assert torch.equal(quantizer(strided).codes, quantizer(latents).codes)
    assert torch.equal(quantizer(strided).latents, quantizer(latents).latents)
    codes = quantizer(latents).codes
    turned = quantizer.lookup(codes.transpose(1, 2))
    assert turned.is_contiguous()
    assert torch.equal(turned.transpose(2, 3), quantizer.lookup(codes))


def test_the_length_of_a_latent_does_not_matter_to_bsq() -> None:
    latents = noise(2, 6, 4, 4)
    quantizer = BSQ(6)
    # By a power of two, which changes no rounding.
    assert torch.equal(quantizer(latents).codes, quantizer(latents * 64).codes)
    assert torch.equal(quantizer(latents).loss, quantizer(latents * 64).loss)


def test_signs_and_codes_are_one_graph() -> None:
    compiled = torch.compile(sign_codes, fullgraph=True, backend="eager")
    latents = noise(2, 18, 3, 3)
    for found, expected in zip(compiled(latents), sign_codes(latents), strict=True):
        assert torch.equal(found, expected)


@given(st.integers(1, 31), st.data())
def test_signs_are_the_bits_of_a_code(dim: int, data: st.DataObject) -> None:
    code = data.draw(st.integers(0, 2**dim - 1))
    signs = codes_to_signs(torch.tensor([[[code]]]), dim)
    assert "".join("1" if sign > 0 else "0" for sign in signs.flatten().tolist()) == f"{code:0{dim}b}"
    assert sign_codes(signs)[1].item() == code


@given(st.integers(1, 31), st.data())
def test_bits_reversed_twice_are_as_before(dim: int, data: st.DataObject) -> None:
    code = data.draw(st.integers(0, 2**dim - 1))
    turned = reverse_bits(torch.tensor(code), dim)
    assert turned.item() == int(f"{code:0{dim}b}"[::-1], 2)
    assert reverse_bits(turned, dim).item() == code


@given(st.lists(st.integers(1, 10), min_size=1, max_size=3), st.data())
def test_sub_tokens_are_runs_of_bits_of_the_code(widths: list[int], data: st.DataObject) -> None:
    code = data.draw(st.integers(0, 2 ** sum(widths) - 1))
    parts = split_bits(torch.tensor([code]), widths)
    assert "".join(f"{part:0{width}b}" for part, width in zip(parts[0].tolist(), widths, strict=True)) == (
        f"{code:0{sum(widths)}b}"
    )
    assert join_bits(parts, widths).tolist() == [code]


def test_small_integers_are_wide_enough_for_sub_tokens() -> None:
    parts = torch.tensor([[200, 255]], dtype=torch.uint8)
    assert join_bits(parts, [8, 8]).tolist() == [200 * 256 + 255]
    assert split_bits(torch.tensor([65535], dtype=torch.uint16), [8, 8]).tolist() == [[255, 255]]
    assert reverse_bits(torch.tensor([1], dtype=torch.uint8), 18).tolist() == [2**17]


def test_sub_tokens_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sub-tokens are \(4, 3\), expected \(..., 2\)"):
        join_bits(torch.zeros(4, 3, dtype=torch.int64), [6, 6])


# --- losses


def entropies_by_table(points: Tensor, magnitude: float, temperature: float, group: int) -> tuple[Tensor, Tensor]:
    """The definition: chances of all 2^g codes of each group for each vector, in a table."""
    codebook = codes_to_signs(torch.arange(2**group).view(1, 1, -1), group)[0, :, 0].T.to(points.dtype) * magnitude
    grouped = points.movedim(1, -1).reshape(-1, points.shape[1] // group, group)  # (N, G, g)
    distances = (grouped.unsqueeze(2) - codebook).square().sum(dim=-1)  # (N, G, 2^g)
    chances = (-distances / temperature).softmax(dim=-1)
    sample = torch.special.entr(chances).sum(dim=(1, 2)).mean()
    return sample, torch.special.entr(chances.mean(dim=0)).sum()


@pytest.mark.parametrize("temperature", [0.3, 4.0])
@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_entropies_are_those_of_the_softmax_over_codes(group: int, temperature: float) -> None:
    points = noise(2, 6, 3, 5).double().requires_grad_()
    for magnitude in (1.0, 6**-0.5):
        found = sign_entropies(points, magnitude, temperature, group)
        expected = entropies_by_table(points, magnitude, temperature, group)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
            torch.testing.assert_close(gradient(one, points), gradient(other, points))


def test_autocast_and_bfloat16_do_not_coarsen_the_entropies() -> None:
    latents = noise(2, 6, 4, 4).bfloat16()
    quantizer = LFQ(6, temperature=1.0, entropy_group=6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer.entropies(latents)
    plain = quantizer.entropies(latents.float())
    assert torch.equal(inside.sample, plain.sample)
    assert torch.equal(inside.batch, plain.batch)


def test_a_sample_entropy_does_not_depend_on_groups() -> None:
    points = noise(2, 6, 3, 5)
    found = [sign_entropies(points, 1.0, 0.5, group).sample for group in (1, 2, 3, 6)]
    assert all(torch.equal(value, found[0]) for value in found)


def test_batch_entropies_fall_as_groups_grow() -> None:
    points = noise(2, 6, 3, 5)
    for small, large in [(1, 2), (2, 6), (1, 3), (3, 6)]:
        assert sign_entropies(points, 1.0, 0.5, small).batch > sign_entropies(points, 1.0, 0.5, large).batch


def test_entropies_are_in_nats() -> None:
    unsure = LFQ(3, temperature=0.01).entropies(torch.zeros(1, 3, 1, 2))
    assert unsure.sample.item() == pytest.approx(3 * math.log(2))
    assert unsure.batch.item() == pytest.approx(3 * math.log(2))
    sure = LFQ(2, temperature=0.01).entropies(places([[1.0, -1.0], [-1.0, -1.0]]))
    assert sure.sample.item() == pytest.approx(0, abs=1e-6)
    assert sure.batch.item() == pytest.approx(math.log(2))


def test_groups_see_that_dimensions_repeat_each_other() -> None:
    twins = places([[1.0, 1.0], [-1.0, -1.0]])
    assert LFQ(2, temperature=0.01, entropy_group=1).entropies(twins).batch.item() == pytest.approx(2 * math.log(2))
    assert LFQ(2, temperature=0.01, entropy_group=2).entropies(twins).batch.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_entropy_loss_is_sample_less_batch_at_their_weights(kind: Kind) -> None:
    quantizer = kind(6, sample_entropy_weight=0.7, batch_entropy_weight=1.3, temperature=0.5, entropy_group=2)
    latents = noise(2, 6, 3, 3)
    terms = quantizer.entropies(latents)
    torch.testing.assert_close(quantizer(latents).losses["entropy"], 0.7 * terms.sample - 1.3 * terms.batch)


def test_mean_rank_entropy_is_at_most_the_joint_one() -> None:
    ranks = [noise(2, 6, 2, 2, seed=seed) + shift for seed, shift in [(1, 0.5), (2, -0.5)]]
    for group in (1, 6):
        quantizer = LFQ(6, entropy_group=group)
        apart = [quantizer.entropies(latents).batch for latents in ranks]
        assert (apart[0] + apart[1]) / 2 < quantizer.entropies(torch.cat(ranks)).batch


@pytest.mark.parametrize("kind", KINDS)
def test_an_entropy_weight_of_zero_leaves_the_entropy_out(kind: Kind) -> None:
    quantizer = kind(6, entropy_weight=0)
    assert set(quantizer(noise(2, 6, 3, 3)).losses) == {"commitment"}
    assert quantizer.loss_weights == {"commitment": 0.25}


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_an_empty_batch_are_zero(kind: Kind, group: int) -> None:
    out = kind(6, entropy_group=group).train()(torch.zeros(0, 6, 2, 3))
    assert {name: loss.item() for name, loss in out.losses.items()} == {"commitment": 0, "entropy": 0}
    assert out.loss.item() == 0
    assert out.latents.shape == (0, 6, 2, 3)


def test_no_table_of_all_codes_is_held() -> None:
    sizes = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    latents = noise(1, 18, 16, 16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        LFQ(18)(latents)
    assert max(sizes) <= latents.numel()
    sizes.clear()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        LFQ(18, entropy_group=18)(latents)
    assert max(sizes) <= 2**18  # the mean over vectors; the chances for each would be 256 times as many


# --- gradients


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_passes_straight_through_to_what_is_compared(kind: Kind) -> None:
    latents, upstream = noise(2, 6, 3, 3).requires_grad_(), noise(2, 6, 3, 3, seed=2)
    found = gradient((kind(6)(latents).latents * upstream).sum(), latents)
    points = latents if kind is LFQ else F.normalize(latents, dim=1)
    torch.testing.assert_close(found, gradient((points * upstream).sum(), latents))


def test_the_gradient_of_bsq_is_across_the_latent() -> None:
    latents = noise(2, 6, 3, 3).requires_grad_()
    out = BSQ(6, temperature=1.0)(latents)
    found = gradient(out.loss + (out.latents * noise(2, 6, 3, 3, seed=2)).sum(), latents)
    along = (found * latents).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-5, rtol=0)


def test_the_commitment_loss_draws_latents_to_their_codes() -> None:
    latents = noise(2, 6, 3, 3).requires_grad_()
    out = LFQ(6)(latents)
    expected = 2 * (latents - out.latents).detach() / latents.numel()
    torch.testing.assert_close(gradient(out.losses["commitment"], latents), expected)


def test_sample_entropy_enlarges_latents_and_batch_entropy_evens_signs() -> None:
    lopsided = places([[0.5, -0.5], [0.4, -0.6], [0.3, 0.2]]).requires_grad_()
    sample, batch = LFQ(2, temperature=1.0).entropies(lopsided)
    # Descending raises |z| everywhere.
    assert (gradient(sample, lopsided) * lopsided < 0).all()
    # Ascending lowers a dimension that is mostly above zero, and raises one that is mostly below.
    assert (gradient(batch, lopsided)[0, 0] < 0).all()
    assert (gradient(batch, lopsided)[0, 1] > 0).all()


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_losses_are_those_of_finite_differences(kind: Kind, group: int) -> None:
    quantizer = kind(4, temperature=0.5, entropy_group=group)
    latents = noise(2, 4, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tuple(quantizer(z).losses.values()), latents)


@pytest.mark.parametrize("temperature", [0.01, 1e-6])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e-7, 1.0, 1e4, 1e15])
def test_losses_and_gradients_are_finite_for_latents_of_any_size(
    kind: Kind, group: int, temperature: float, size: float
) -> None:
    latents = (noise(2, 6, 3, 3) * size).requires_grad_()
    out = kind(6, temperature=temperature, entropy_group=group)(latents)
    found = gradient(out.loss + (out.latents * noise(2, 6, 3, 3, seed=2)).sum(), latents)
    assert torch.isfinite(out.loss)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 2e7 + size


@pytest.mark.parametrize("group", [1, 6])
def test_entropies_are_finite_where_latents_over_the_temperature_are_not(group: int) -> None:
    latents = (noise(2, 6, 3, 3).sign() * 1e36).requires_grad_()
    sample, batch = LFQ(6, temperature=1e-6, entropy_group=group).entropies(latents)
    assert sample.item() == 0
    assert 0 < batch < 6 * math.log(2)
    assert not gradient(sample + batch, latents).any()


def test_a_batch_certain_of_one_code_has_no_entropy_gradient() -> None:
    latents = torch.full((2, 6, 3, 3), 5.0, requires_grad=True)
    for group in (1, 6):
        sample, batch = LFQ(6, temperature=0.01, entropy_group=group).entropies(latents)
        assert sample.item() == 0
        assert batch.item() == 0
        assert not gradient(sample + batch, latents).any()


def test_a_zero_latent_has_code_0_and_the_unchanged_gradient() -> None:
    latents = torch.zeros(1, 4, 1, 1, requires_grad=True)
    out = BSQ(4)(latents)
    assert out.codes.item() == 0
    assert out.latents.flatten().tolist() == [-0.5] * 4
    upstream = column(1.0, 2.0, 3.0, 4.0)
    assert torch.equal(gradient((out.latents * upstream).sum(), latents), upstream)


@pytest.mark.parametrize("shape", [(1, 32, 2, 2), (1, 0, 2, 2), (3, 4), (2, 3, 4)])
def test_signs_of_other_shapes_or_too_many_bits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, D, H, W\) with D from 1 to 31"):
        sign_codes(torch.zeros(shape))


@pytest.mark.parametrize("group", [0, -1, 4, 7])
def test_entropy_groups_that_do_not_divide_the_dimensions_are_refused(group: int) -> None:
    with pytest.raises(ValueError, match=f"group is {group}, expected a divisor of the 6 dimensions"):
        sign_entropies(noise(2, 6, 3, 3), 1.0, 1.0, group)


def test_latents_on_the_sphere_have_unit_length() -> None:
    latents = noise(2, 5, 3, 3)
    torch.testing.assert_close(to_sphere(latents), F.normalize(latents, dim=1))
    zeros = torch.zeros(1, 5, 1, 1)
    assert torch.equal(to_sphere(zeros), zeros)


def test_one_dimension_learns_with_lfq_alone() -> None:
    latents = noise(2, 1, 3, 3).requires_grad_()
    torch.testing.assert_close(gradient(BSQ(1)(latents).latents.sum(), latents), torch.zeros_like(latents))
    assert torch.equal(gradient(LFQ(1)(latents).latents.sum(), latents), torch.ones_like(latents))


# --- refusals


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0, expected greater than or equal to 1"),
        ({"dim": 32}, "dim is 32, expected less than or equal to 31"),
        ({"dim": 2.5}, "dim is 2.5, expected a valid integer"),
        ({"entropy_group": 0}, "entropy_group is 0, expected greater than or equal to 1"),
        ({"entropy_group": 4}, "entropy_group is 4, expected a divisor of dim 6; 1 is cheapest"),
        ({"dim": 24, "entropy_group": 24}, r"holds 2\^24 probabilities; at most 20"),
        ({"temperature": 0}, "temperature is 0, expected greater than or equal to 0.000001"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf, expected a finite number"),
        ({"commitment_weight": -1.0}, "commitment_weight is -1.0, expected greater than or equal to 0"),
        ({"entropy_weight": math.inf}, "entropy_weight is inf"),
        ({"sample_entropy_weight": math.nan}, "sample_entropy_weight is nan"),
        ({"batch_entropy_weight": -0.5}, "batch_entropy_weight is -0.5"),
        ({"sample_entropy_weight": 0, "batch_entropy_weight": 0}, "both 0 has no effect"),
    ],
)
def test_values_that_make_no_quantizer_are_refused(kind: Kind, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**({"dim": 6} | options))


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_nothing_to_save_and_the_settings_are_printed(kind: Kind) -> None:
    quantizer = kind(6, entropy_group=2)
    assert not quantizer.state_dict()
    assert not quantizer.code_tensors()
    assert repr(quantizer) == f"{kind.__name__}(dim=6, num_codes=64, temperature=1.0, entropy_group=2)"
