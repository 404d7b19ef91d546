"""What is particular to the Gumbel-softmax quantizer: its draws, its gradient, its divergence, its temperature."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import noise, noise_for
from torch import Tensor

from imtok.quantizers import GumbelQuantizer
from imtok.quantizers.base import to_rows
from imtok.quantizers.gumbel import gumbel_noise, kl_to_uniform


def gumbel(**options: Any) -> GumbelQuantizer:
    torch.manual_seed(0)
    return GumbelQuantizer(**({"dim": 6, "num_codes": 16, "code_dim": 4} | options))


def draws_of(quantizer: GumbelQuantizer, latents: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    codes = quantizer(latents).codes
    assert isinstance(codes, Tensor)
    return codes


# --- draws


def test_training_draws_codes_and_evaluation_takes_the_largest_logit() -> None:
    quantizer, latents = gumbel(), noise(4, 6, 8, 8)
    drawn = [draws_of(quantizer.train(), latents, seed) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).double().mean() > 0.1
    logits = quantizer.logits(to_rows(latents))
    largest = logits.argmax(dim=1).view(4, 8, 8)
    assert torch.equal(draws_of(quantizer.eval(), latents, 1), largest)
    assert torch.equal(draws_of(quantizer, latents, 2), largest)


def test_evaluation_without_a_gradient_makes_no_table_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, latents = gumbel().eval(), noise(2, 6, 8, 8)
    with_gradient = quantizer(latents)
    expected = quantizer.logits(to_rows(latents)).argmax(dim=1).view(2, 8, 8)

    def refused(*_: Any) -> Tensor:
        raise AssertionError("a table was made")

    monkeypatch.setattr(GumbelQuantizer, "logits", refused)
    monkeypatch.setattr("imtok.quantizers.gumbel.kl_to_uniform", refused)
    with torch.no_grad():
        out = quantizer(latents)
    assert torch.equal(out.codes, expected)
    assert torch.equal(out.codes, with_gradient.codes)
    assert torch.equal(out.latents, with_gradient.latents)
    assert out.losses == {}


def test_codes_are_drawn_with_the_probabilities_of_the_softmax() -> None:
    quantizer = gumbel()
    latents = noise(1, 6, 1, 1).expand(1, 6, 200, 200)
    shares = draws_of(quantizer.train(), latents, 3).flatten().bincount(minlength=16) / 40_000
    expected = quantizer.logits(to_rows(noise(1, 6, 1, 1))).softmax(dim=1).squeeze(0)
    torch.testing.assert_close(shares, expected.detach(), atol=0.01, rtol=0)


def test_noise_is_gumbels_and_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    drawn = gumbel_noise(torch.empty(200, 1000, dtype=torch.float64))
    assert drawn.mean().item() == pytest.approx(0.5772156649, abs=0.01)  # Euler's constant
    assert drawn.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)
    monkeypatch.setattr(Tensor, "exponential_", Tensor.zero_)
    assert torch.isfinite(gumbel_noise(torch.empty(3, 4))).all()


def test_straight_through_training_gives_the_drawn_codes_exactly() -> None:
    quantizer = gumbel(temperature=0.3).train()
    latents = noise(4, 6, 8, 8).requires_grad_()
    out = quantizer(latents)
    assert torch.equal(quantizer.lookup(out.codes), out.latents)
    with torch.no_grad():
        again = quantizer(latents)
    assert torch.equal(quantizer.lookup(again.codes), again.latents)


def test_mixing_gives_softmax_in_training_and_codes_at_evaluation() -> None:
    quantizer, latents = gumbel(straight_through=False, temperature=0.5), noise(2, 6, 4, 4)
    logits = quantizer.logits(to_rows(latents))
    drawn = noise(*logits.shape, seed=4)
    mixed, codes = quantizer.train().choose(logits, drawn)
    soft = ((logits + drawn) / 0.5).softmax(dim=1)
    torch.testing.assert_close(mixed, soft @ quantizer.codebook)
    assert torch.equal(codes, soft.argmax(dim=1))
    assert not torch.allclose(mixed, quantizer.codebook[codes], atol=0.1)
    out = quantizer.eval()(latents)
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


# --- gradients


@pytest.mark.parametrize("straight_through", [True, False])
def test_the_gradient_is_that_of_the_tempered_softmax(straight_through: bool) -> None:
    quantizer = gumbel(straight_through=straight_through, temperature=0.6).train()
    logits, drawn, grad = (noise(20, width, seed=seed).double() for width, seed in ((16, 5), (16, 6), (4, 7)))
    logits.requires_grad_()
    chosen, codes = quantizer.choose(logits, drawn)
    found, found_table = torch.autograd.grad((chosen * grad).sum(), [logits, quantizer.codebook])

    table = quantizer.codebook.detach().double()
    soft = ((logits.detach() + drawn) / 0.6).softmax(dim=1)
    pull = grad @ table.T  # (N, K), what each code would change
    expected = soft * (pull - (soft * pull).sum(dim=1, keepdim=True)) / 0.6
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    weights = F.one_hot(codes, 16).double() if straight_through else soft
    torch.testing.assert_close(found_table, (weights.T @ grad).float(), atol=1e-5, rtol=1e-5)


def test_the_decoders_gradient_reaches_the_latents_and_all_weights() -> None:
    quantizer = gumbel().train()
    latents = noise_for(quantizer).requires_grad_()
    (quantizer(latents).latents * noise(2, 4, 4, 4, seed=3)).sum().backward()
    for tensor in (latents, quantizer.projection.weight, quantizer.projection.bias, quantizer.codebook):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_the_divergence_moves_latents_and_logits_but_no_codebook() -> None:
    quantizer = gumbel().train()
    latents = noise_for(quantizer).requires_grad_()
    quantizer(latents).losses["kl"].backward()
    assert quantizer.codebook.grad is None
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    assert quantizer.projection.weight.grad is not None
    q = quantizer.logits(to_rows(latents.detach())).softmax(dim=1)
    surplus = (q * 16).log() - (q * (q * 16).log()).sum(dim=1, keepdim=True)
    expected = (q * surplus) @ quantizer.projection.weight / len(q)
    torch.testing.assert_close(to_rows(latents.grad), expected.detach(), atol=1e-6, rtol=1e-4)


# --- divergence


def test_the_divergence_is_that_from_the_uniform_prior() -> None:
    assert kl_to_uniform(torch.full((3, 8), 2.5)).item() == pytest.approx(0.0, abs=1e-6)
    one_code = torch.tensor([[1e4, 0.0, 0.0, -1e4]])
    assert kl_to_uniform(one_code).item() == pytest.approx(math.log(4))
    half = torch.tensor([[0.75, 0.25]]).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_to_uniform(half).item() == pytest.approx(expected)
    assert kl_to_uniform(torch.cat([half, half * 0])).item() == pytest.approx(expected / 2)
    assert kl_to_uniform(torch.empty(0, 4)).item() == 0


# --- temperature


def test_the_temperature_falls_exponentially_over_the_run() -> None:
    quantizer = gumbel(temperature=2.0, final_temperature=0.125)
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        quantizer.anneal(progress)
        found.append(quantizer.current_temperature().item())
    assert found == pytest.approx([2.0, 1.0, 0.5, 0.125])


def test_the_gradient_follows_the_temperature_of_the_moment() -> None:
    quantizer, other = gumbel(temperature=1.0, final_temperature=0.25), gumbel(temperature=0.5)
    quantizer.anneal(0.5)
    grads: list[Tensor] = []
    for one in (quantizer.eval(), other.eval()):
        latents = noise_for(one).requires_grad_()
        grads += torch.autograd.grad((one(latents).latents * noise(2, 4, 4, 4, seed=3)).sum(), latents)
    torch.testing.assert_close(grads[0], grads[1])


def test_the_point_of_the_run_is_saved() -> None:
    quantizer, other = gumbel(), gumbel()
    quantizer.anneal(0.7)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.current_temperature(), quantizer.current_temperature())
    assert not torch.equal(other.current_temperature(), gumbel().current_temperature())


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_a_share_outside_0_and_1_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match=rf"progress is {progress}, expected \[0, 1\]"):
        gumbel().anneal(progress)


# --- edges


def test_one_code_in_one_dimension_is_no_trouble() -> None:
    quantizer = gumbel(dim=1, num_codes=1, code_dim=1).train()
    latents = noise(2, 1, 3, 3).requires_grad_()
    out = quantizer(latents)
    (out.loss + out.latents.sum()).backward()
    assert out.codes.max() == 0
    assert out.losses["kl"].item() == 0
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.zeros_like(latents))


def test_an_empty_batch_has_no_loss_and_no_gradient() -> None:
    quantizer = gumbel().train()
    out = quantizer(torch.zeros(0, 6, 4, 4))
    assert out.latents.shape == (0, 4, 4, 4)
    assert out.loss.item() == 0
    (out.loss + out.latents.sum()).backward()
    for parameter in quantizer.parameters():
        assert parameter.grad is None or torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_weights_that_are_not_finite_are_refused() -> None:
    quantizer = gumbel()
    quantizer.projection.weight.data[3, 2] = math.nan
    with pytest.raises(ValueError, match="the latents or the weights of the logits hold NaN or infinite values"):
        quantizer(noise_for(quantizer))


def test_what_decides_the_codes_is_named() -> None:
    quantizer = gumbel().eval()
    latents = noise_for(quantizer)
    codes = quantizer(latents).codes
    assert {key: tuple(value.shape) for key, value in quantizer.code_tensors().items()} == {
        "weight": (16, 6),
        "bias": (16,),
        "codebook": (16, 4),
    }
    moved = copy.deepcopy(quantizer)
    moved.projection.bias.data[0] += 100
    assert torch.equal(moved(latents).codes, torch.zeros_like(codes))
    assert not any(value.requires_grad for value in quantizer.code_tensors().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0, expected greater than or equal to 1"),
        ({"num_codes": 0}, "num_codes is 0"),
        ({"code_dim": 0}, "code_dim is 0"),
        ({"temperature": math.inf}, "temperature is inf, expected a finite number"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"final_temperature": 0.0}, "final_temperature is 0.0, expected greater than 0"),
        ({"final_temperature": 1.5}, "final_temperature 1.5 is higher than temperature 1.0"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0, expected greater than or equal to 0"),
        ({"kl_weight": math.nan}, "kl_weight is nan"),
    ],
)
def test_unsafe_choices_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gumbel(**options)


def test_codes_have_as_many_channels_as_latents_by_default() -> None:
    assert GumbelQuantizer(6, 16).code_dim == 6
    assert gumbel().code_dim == 4
