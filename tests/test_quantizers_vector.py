"""Vector quantization: how a code is found, how the gradient passes, how the codebook learns, and on several ranks."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from families import VQ, make, noise, noise_for
from torch import Tensor

from imtok.quantizer_config import VQConfig
from imtok.quantizers import (
    FSQ,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
    forget_moved_codes,
)


def as_grid(rows: Tensor) -> Tensor:
    """(N, D) -> (1, D, 1, N)."""
    return rows.T[None, :, None, :]


def as_rows(latents: Tensor) -> Tensor:
    """(B, D, H, W) -> (N, D)."""
    return latents.movedim(1, -1).flatten(0, 2)


def set_codebook(quantizer: VectorQuantizer, rows: Tensor) -> None:
    quantizer.codebook.data.copy_(rows)
    if quantizer.codebook_update == "ema":
        quantizer.embed_sum.copy_(rows)


# --- losses and gradients


@pytest.mark.parametrize("name", [name for name in VQ if "gradient" in name and "euclidean" in name])
def test_the_commitment_loss_moves_the_latents_alone(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.losses["commitment"].backward()
    codes = quantizer.lookup(out.codes).detach()
    assert out.losses["commitment"].item() == pytest.approx(F.mse_loss(latents, codes).item())
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, 2 * (latents.detach() - codes) / latents.numel())
    assert quantizer.codebook.grad is None


@pytest.mark.parametrize("name", [name for name in VQ if "gradient" in name and "euclidean" in name])
def test_the_codebook_loss_moves_the_chosen_codes_alone(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.losses["codebook"].backward()
    assert latents.grad is None
    pull = torch.zeros(quantizer.num_codes, quantizer.dim)
    pull.index_add_(0, out.codes.flatten(), as_rows(quantizer.lookup(out.codes) - latents).detach())
    torch.testing.assert_close(quantizer.codebook.grad, 2 * pull / latents.numel())


def test_cosine_losses_are_taken_on_the_unit_sphere() -> None:
    quantizer = make("vq-cosine-straight_through-gradient")
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    rows, codes = as_rows(latents).detach(), as_rows(out.latents).detach()
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(len(codes)))
    expected = (2 - 2 * F.cosine_similarity(rows, codes)).mean() / quantizer.dim  # |a - b|^2 = 2 - 2 cos
    torch.testing.assert_close(out.losses["commitment"], expected)
    torch.testing.assert_close(out.losses["codebook"], expected)
    out.losses["commitment"].backward()
    assert latents.grad is not None
    along = (as_rows(latents.grad) * rows).sum(dim=1)  # a length has no effect, so no gradient goes along it
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-7, rtol=0)


def test_straight_through_gradients_are_ones() -> None:
    for name in ("vq-euclidean-straight_through-ema", "vq-euclidean-straight_through-gradient"):
        quantizer = make(name)
        latents = noise_for(quantizer).requires_grad_()
        quantizer(latents).latents.sum().backward()
        assert latents.grad is not None
        assert torch.equal(latents.grad, torch.ones_like(latents))


def test_rotated_gradients_have_the_ratio_of_lengths() -> None:
    quantizer = make("vq-euclidean-rotation-ema").eval()
    latents, grad = noise_for(quantizer).requires_grad_(), noise_for(quantizer, seed=3)
    out = quantizer(latents)
    out.latents.backward(grad)
    assert latents.grad is not None
    ratio = out.latents.norm(dim=1) / latents.norm(dim=1)
    torch.testing.assert_close(latents.grad.norm(dim=1), ratio * grad.norm(dim=1))
    assert not torch.allclose(latents.grad, grad)


@pytest.mark.parametrize("name", [name for name in VQ if "gradient" in name])
def test_the_decoders_gradient_reaches_the_latents_and_not_the_codebook(name: str) -> None:
    quantizer = make(name)
    latents = noise_for(quantizer).requires_grad_()
    (quantizer(latents).latents * noise_for(quantizer, seed=3)).sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    assert quantizer.codebook.grad is None


@pytest.mark.parametrize("name", VQ)
def test_only_what_learns_by_gradient_is_a_parameter(name: str) -> None:
    quantizer = make(name)
    assert isinstance(quantizer, VectorQuantizer)
    expected = {
        "gradient": ["codebook"],
        "projection": ["projection.weight", "projection.bias"] if "bias" in name else ["projection.weight"],
    }
    assert [key for key, _ in quantizer.named_parameters()] == expected.get(quantizer.codebook_update, [])
    assert "codebook" in quantizer.state_dict()


def test_published_inverted_beta_is_a_choice_of_weights() -> None:
    """taming and SimVQ with `legacy=True`, diffusers and IBQ weigh the codebook term by beta, not the commitment."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 24, codebook_update="gradient", commitment_weight=1.0, codebook_weight=0.25)
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.loss.backward()
    codes = quantizer.lookup(out.codes).detach()
    assert out.loss.item() == pytest.approx(1.25 * F.mse_loss(codes, latents).item())
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, 2 * (latents.detach() - codes) / latents.numel())
    pull = torch.zeros(24, 4).index_add_(0, out.codes.flatten(), as_rows(codes - latents).detach())
    torch.testing.assert_close(quantizer.codebook.grad, 0.25 * 2 * pull / latents.numel())


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("update", ["ema", "gradient", "projection", "frozen"])
def test_latents_without_a_direction_have_a_bounded_gradient(estimator: Any, update: Any) -> None:
    """Zero latents under cosine, as a network begun at zero gives them; clamping the length at 1e-12 gave 1e12."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 24, metric="cosine", estimator=estimator, codebook_update=update)
    latents = noise(1, 4, 3, 3)
    latents[..., 0] = 0
    latents[..., 1] *= 1e-6
    latents.requires_grad_()
    out = quantizer(latents)
    (out.loss + out.latents.sum()).backward()
    assert latents.grad is not None
    assert latents.grad[..., :2].abs().max() < 10
    assert latents.grad[..., 0].abs().min() > 0  # so that they leave the origin
    assert (out.codes[..., 0] == 0).all()  # all codes are as near; the first takes them
    torch.testing.assert_close(out.latents.norm(dim=1), torch.ones(1, 3, 3))


# --- projected and frozen codebooks


def test_a_projected_codebooks_losses_move_projection_and_latents() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 24, codebook_update="projection", projection_bias=True)
    noise_before = quantizer.codebook.clone()
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.losses["codebook"].backward(retain_graph=True)
    assert latents.grad is None
    codes = F.embedding(out.codes, noise_before @ quantizer.projection.weight.T + quantizer.projection.bias)
    pull = 2 * (codes.movedim(-1, 1) - latents).detach() / latents.numel()
    expected = torch.einsum("bdhw,bhwc->dc", pull, F.embedding(out.codes, noise_before))
    torch.testing.assert_close(quantizer.projection.weight.grad, expected)
    torch.testing.assert_close(quantizer.projection.bias.grad, pull.sum(dim=(0, 2, 3)))
    quantizer.zero_grad()
    out.losses["commitment"].backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, -pull)
    assert quantizer.projection.weight.grad is None
    assert torch.equal(quantizer.codebook, noise_before)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_projected_codebook_is_looked_up_to_the_last_bit(metric: Any, bias: bool) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(48, 3000, metric=metric, codebook_update="projection", projection_bias=bias).eval()
    codes = torch.arange(3000).view(1, 50, 60)
    every = quantizer(quantizer.lookup(codes))
    assert torch.equal(every.codes, codes)
    assert torch.equal(every.latents, quantizer.lookup(codes))
    few = quantizer(noise(1, 48, 1, 3))
    assert torch.equal(quantizer.lookup(few.codes), few.latents)


def test_a_projected_codebook_learns_as_a_whole() -> None:
    """SimVQ's point: codes that no latent chose move with the others."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 64, codebook_update="projection")
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    latents = noise(4, 4, 8, 8)
    every = torch.arange(64).view(1, 8, 8)
    before = quantizer.lookup(every).detach()
    first = quantizer(latents)
    first.loss.backward()
    optimizer.step()
    assert len(first.codes.unique()) < 64
    assert (quantizer.lookup(every).detach() != before).all()
    for _ in range(100):
        optimizer.zero_grad()
        quantizer(latents).loss.backward()
        optimizer.step()
    last = quantizer(latents)
    assert last.losses["commitment"] < 0.5 * first.losses["commitment"]
    assert len(last.codes.unique()) > len(first.codes.unique())


def test_a_frozen_codebook_is_fixed_and_has_the_commitment_alone() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 24, codebook_update="frozen")
    before = copy.deepcopy(quantizer.state_dict())
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.loss.backward()
    assert list(out.losses) == ["commitment"]
    assert latents.grad is not None
    codes = quantizer.lookup(out.codes)
    torch.testing.assert_close(latents.grad, 0.25 * 2 * (latents.detach() - codes) / latents.numel())
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


# --- index propagation


def propagating(**options: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    settings = {"metric": "dot", "estimator": "index_propagation", "codebook_update": "gradient"}
    return VectorQuantizer(4, 12, **(settings | options))


def test_index_propagation_finds_the_greatest_product() -> None:
    quantizer = propagating().eval()
    latents = noise_for(quantizer)
    assert torch.equal(quantizer(latents).codes.flatten(), (as_rows(latents) @ quantizer.codebook.T).argmax(dim=1))


def test_the_gradient_of_index_propagation_is_that_of_its_equation() -> None:
    """(one_hot - sg[p] + p) E, built in full, in float64."""
    quantizer = propagating().double()
    latents, grad = noise_for(quantizer).double().requires_grad_(), noise_for(quantizer, seed=3).double()
    out = quantizer(latents)
    (out.latents * grad).sum().backward()

    rows, codebook = as_rows(latents.detach()).requires_grad_(), quantizer.codebook.detach().clone().requires_grad_()
    shares = (rows @ codebook.T).softmax(dim=1)
    one_hot = F.one_hot(shares.argmax(dim=1), 12) - shares.detach() + shares
    ((one_hot @ codebook) * as_rows(grad)).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(as_rows(latents.grad), rows.grad)
    torch.testing.assert_close(quantizer.codebook.grad, codebook.grad)
    assert isinstance(quantizer.codebook.grad, Tensor)
    assert (quantizer.codebook.grad != 0).any(dim=1).all()  # chosen or not
    assert len(out.codes.unique()) < 12


@pytest.mark.parametrize(
    ("name", "moves_latents", "moves_codebook"),
    [("commitment", True, False), ("codebook", False, True), ("double_quantization", True, True)],
)
def test_each_loss_of_index_propagation_moves_its_own(name: str, moves_latents: bool, moves_codebook: bool) -> None:
    quantizer = propagating()
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    out.losses[name].backward()
    assert out.losses[name].item() == pytest.approx(F.mse_loss(out.latents, latents).item())
    assert (latents.grad is not None) == moves_latents
    assert (quantizer.codebook.grad is not None) == moves_codebook


# --- the entropy loss


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("update", ["ema", "gradient", "projection"])
def test_the_entropy_loss_moves_latents_and_the_learning_codebook(metric: Any, update: Any) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        4, 24, metric=metric, codebook_update=update, entropy_weight=0.1, entropy_temperature=0.5
    )
    latents = noise_for(quantizer).requires_grad_()
    out = quantizer(latents)
    table = quantizer.eval()._searched_codebook().detach() if update != "ema" else make_table(metric)
    rows = F.normalize(as_rows(latents.detach()), dim=1) if metric == "cosine" else as_rows(latents.detach())
    shares = (-torch.cdist(rows.double(), table.double()).square() / 0.5).softmax(dim=1)
    mean = shares.mean(dim=0)
    expected = (mean * mean.log()).sum() - (shares * shares.log()).sum(dim=1).mean()
    assert out.losses["entropy"].item() == pytest.approx(expected.item(), rel=1e-5)
    out.losses["entropy"].backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


def make_table(metric: Any) -> Tensor:
    """The codebook a quantizer of 24 codes in 4 dimensions begins with at seed 0, before it learns."""
    torch.manual_seed(0)
    return VectorQuantizer(4, 24, metric=metric).codebook


@pytest.mark.parametrize("name", ["vq-euclidean-rotation-ema", "vq-ema-entropy", "index-propagation-entropy"])
def test_a_table_of_all_codes_needs_a_positive_weight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for module in ("imtok.quantizers.vector", "imtok.kernels.propagation"):
        original = importlib.import_module(module).assignment_logits
        monkeypatch.setattr(f"{module}.assignment_logits", lambda *a, f=original: made.append(a) or f(*a))
    quantizer = make(name)
    with torch.no_grad():
        evaluated = quantizer.eval()(noise_for(quantizer))
    assert made == []
    assert "entropy" not in evaluated.losses
    quantizer.train()(noise_for(quantizer))
    assert len(made) == {"vq-euclidean-rotation-ema": 0, "vq-ema-entropy": 1, "index-propagation-entropy": 2}[name]


# --- moving averages


def test_moving_averages_bring_codes_to_their_latents_means() -> None:
    quantizer = VectorQuantizer(2, 2, decay=0.5)
    set_codebook(quantizer, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    latents = as_grid(torch.tensor([[2.0, 3.0], [4.0, 3.0], [-2.0, -1.0]]))
    for _ in range(30):
        quantizer(latents)
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[3.0, 3.0], [-2.0, -1.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([2.0, 1.0]), atol=1e-3, rtol=0)


def test_codes_that_are_not_used_stay_where_they_are() -> None:
    quantizer = VectorQuantizer(4, 3, decay=0.99)
    set_codebook(quantizer, torch.tensor([[0.0] * 4, [5.0] * 4, [-5.0, 5.0, -5.0, 5.0]]))
    before = quantizer.codebook.clone()
    for seed in range(100):
        assert quantizer(noise(1, 4, 4, 4, seed=seed) * 0.1).codes.max() == 0
    torch.testing.assert_close(quantizer.codebook[1:], before[1:], atol=0, rtol=1e-4)
    assert not torch.equal(quantizer.codebook[0], before[0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_codebook_learns_after_the_look_up(metric: Any) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 8, metric=metric, decay=0.0)
    before = copy.deepcopy(quantizer).eval()
    latents = noise(4, 4, 8, 8)
    out, expected = quantizer(latents), before(latents)
    assert torch.equal(out.latents, expected.latents)
    assert torch.equal(out.losses["commitment"], expected.losses["commitment"])
    assert not torch.allclose(quantizer.codebook, before.codebook, atol=0.05)


def test_cosine_codes_stay_on_the_unit_sphere() -> None:
    quantizer = make("vq-cosine-straight_through-ema")
    assert isinstance(quantizer, VectorQuantizer)
    for seed in range(5):
        quantizer(noise_for(quantizer, seed=seed))
        torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(quantizer.num_codes))


# --- revival


def aged(quantizer: VectorQuantizer, ages: list[int], latents_a_code: int) -> None:
    """Set how many latents ago each code was chosen, and how many latents a code the codebook has seen."""
    quantizer.age.copy_(torch.tensor(ages))
    quantizer.latents_seen.fill_(latents_a_code * quantizer.num_codes)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_restart_puts_dead_codes_on_latents_and_changes_no_others(update: Any) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 4, codebook_update=update, revival_threshold=0.1)
    set_codebook(quantizer, torch.tensor([[0.0, 0.0], [50.0, 50.0], [1.0, 1.0], [-50.0, 50.0]]))
    aged(quantizer, [0, 16, 0, 15], latents_a_code=394)  # after 24 latents more 1 / 0.1 a code are 40
    plain = copy.deepcopy(quantizer)
    plain.revival_threshold = 0.0
    latents = noise(1, 2, 4, 6) * 0.3
    quantizer(latents)
    plain(latents)

    others = [0, 2, 3]
    torch.testing.assert_close(quantizer.codebook[others], plain.codebook[others], rtol=1e-5, atol=0)
    assert (as_rows(latents) == quantizer.codebook[1]).all(dim=1).any()
    assert quantizer.age.tolist() == [0, 0, plain.age[2], 39]
    assert quantizer.latents_seen == 400 * 4
    if update == "ema":
        assert torch.equal(quantizer.embed_sum[others], plain.embed_sum[others])
        assert torch.equal(quantizer.cluster_size[others], plain.cluster_size[others])
        count = quantizer.cluster_size[1]
        torch.testing.assert_close(count, torch.tensor((1 - quantizer.decay) * 24 / 4))  # a step's fair share
        assert torch.equal(quantizer.embed_sum[1], quantizer.codebook[1] * count)
        assert torch.equal(quantizer.codebook[3], torch.tensor([-50.0, 50.0]))
    else:
        taken = quantizer.take_moved_codes()
        assert taken is not None
        assert taken.tolist() == [False, True, False, False]


@pytest.mark.parametrize(("latents_a_code", "patience"), [(4, 2), (100, 10), (400, 20), (40_000, 200)])
def test_patience_grows_with_the_root_of_the_latents_seen(latents_a_code: int, patience: int) -> None:
    quantizer = VectorQuantizer(2, 8, codebook_update="gradient", revival_threshold=0.05)
    set_codebook(quantizer, torch.tensor([[0.0, 0.0]] + [[900.0, 900.0]] * 7))
    ages = [0, 0] + [patience * 8 + extra for extra in (-9, -2, -1, 0, 1, 80)]
    aged(quantizer, ages, latents_a_code)
    quantizer.latents_seen -= 1
    quantizer(noise(1, 2, 1, 1) * 0.1)
    restarted = (quantizer.codebook.abs() < 5).all(dim=1)
    # One latent has room for one code, the oldest of those that the latent makes old enough.
    assert restarted.tolist() == [True, False, False, False, False, False, False, True]
    assert quantizer.age.tolist() == [0, 1, *(age + 1 for age in ages[2:7]), 0]
    quantizer(noise(1, 2, 2, 2) * 0.1)
    assert quantizer.age.tolist()[1:4] == [5, ages[2] + 5, 0] if patience < 4 else True


@pytest.mark.parametrize("share", [0.25, 1.0, 4.0, 64.0])
def test_evenly_used_codes_are_left_alone(share: float) -> None:
    """Of codes with their fair share next to none is restarted late, however few latents a step has."""
    torch.manual_seed(0)
    codes = 256
    quantizer = VectorQuantizer(1, codes, codebook_update="gradient", revival_threshold=0.05)
    set_codebook(quantizer, torch.arange(codes).float().unsqueeze(1))
    aged(quantizer, [0] * codes, latents_a_code=400)
    restarted = 0
    for _ in range(100):
        before = quantizer.codebook.detach().clone()
        quantizer(torch.randint(0, codes, (1, 1, 1, int(share * codes))).float())
        restarted += int((quantizer.codebook != before).sum())
    assert restarted == 0


def test_codes_of_one_stage_outlive_the_turns_of_others() -> None:
    """Two stages share a codebook, and each has codes of its own: neither stage's turn makes the other's old."""
    torch.manual_seed(0)
    shared = VectorQuantizer(1, 4, codebook_update="gradient", revival_threshold=0.9)
    set_codebook(shared, torch.tensor([[8.0], [-8.0], [1.0], [-1.0]]))
    quantizer = ResidualQuantizer(shared, depth=2)
    assert shared.uses_a_step == 2
    for seed in range(4):
        signs = noise(2, 1, 1, 64, seed=seed).sign()
        quantizer((8 * signs[:1] + signs[1:]).view(1, 1, 8, 8))
    assert shared.codebook.flatten().tolist() == [8.0, -8.0, 1.0, -1.0]
    assert shared.age.tolist() == [64, 64, 0, 0]


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_states_from_before_ages_load_as_old_codebooks(update: Any) -> None:
    quantizer = VectorQuantizer(2, 4, codebook_update=update, revival_threshold=0.05)
    quantizer(noise(1, 2, 4, 4))
    state = {name: value for name, value in quantizer.state_dict().items() if name not in ("age", "latents_seen")}
    other = VectorQuantizer(2, 4, codebook_update=update, revival_threshold=0.05)
    other.load_state_dict(state | {"cluster_size": torch.ones(4)})
    assert torch.equal(other.codebook, quantizer.codebook)
    assert other.age.tolist() == [0] * 4
    assert other.latents_seen >= 400 * 4


def test_restart_leaves_the_gradient_of_the_step_unchanged() -> None:
    grads = []
    for threshold in (0.0, 0.99):  # at 0.99 codes that this batch leaves out are restarted after it
        torch.manual_seed(0)
        quantizer = VectorQuantizer(
            3, 16, metric="cosine", codebook_update="gradient", revival_threshold=threshold, decay=0.5
        )
        before = quantizer.codebook.detach().clone()
        quantizer(noise(1, 3, 4, 8)[..., :3]).loss.backward()
        assert isinstance(quantizer.codebook.grad, Tensor)
        grads.append(quantizer.codebook.grad)
    assert (quantizer.codebook != before).any()
    assert torch.equal(*grads)


def test_a_restarted_code_outlives_the_next_update() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 2, revival_threshold=0.1)
    set_codebook(quantizer, torch.tensor([[0.0, 0.0], [900.0, 900.0]]))
    aged(quantizer, [0, 99], latents_a_code=100)
    quantizer(noise(1, 2, 4, 5))
    restarted = quantizer.codebook[1].clone()
    assert restarted.abs().max() < 5
    far = torch.full((1, 2, 2, 2), 100.0) * restarted.sign().neg().view(1, 2, 1, 1)
    quantizer(far)
    assert torch.equal(quantizer.codebook[1], restarted)


def test_restart_raises_the_use_of_a_collapsed_codebook() -> None:
    def used(threshold: float) -> int:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(2, 64, decay=0.9, revival_threshold=threshold)
        set_codebook(quantizer, 20 + noise(64, 2, seed=3))
        for seed in range(60):
            quantizer(noise(4, 2, 8, 8, seed=seed))
        return len(quantizer.eval()(noise(16, 2, 8, 8, seed=99)).codes.unique())

    assert used(0.0) < 12
    assert used(0.1) > 55


def test_a_codebook_keeps_up_with_latents_on_the_move() -> None:
    """A drifting mixture of Gaussians leaves codes of a slow moving average behind, and restarts bring them back."""

    def used(threshold: float) -> int:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(4, 256, kmeans_start=True, revival_threshold=threshold)
        for step in range(40):
            quantizer(noise(1, 4, 32, 32, seed=step) + 0.1 * step)
        return len(quantizer.eval()(noise(4, 4, 32, 32, seed=99) + 4).codes.unique())

    assert used(0.0) < 20
    assert used(0.05) > 200


def test_codes_are_restarted_on_latents_of_their_own() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 16, codebook_update="gradient", revival_threshold=0.5)
    set_codebook(quantizer, torch.full((16, 2), 900.0))
    aged(quantizer, [0] + [500] * 3 + [400] * 2 + [500] * 10, latents_a_code=100)
    latents = noise(1, 2, 3, 4)
    quantizer(latents)
    moved = [*range(1, 4), *range(6, 15)]
    assert (quantizer.codebook[moved].unsqueeze(1) == as_rows(latents)).all(dim=2).sum(dim=0).tolist() == [1] * 12
    waiting = [4, 5, 15]  # there are twelve latents; the youngest of the dead, then the last, wait for the next batch
    assert (quantizer.codebook[waiting] == 900).all()
    assert quantizer.age[waiting].tolist() == [412, 412, 512]


def test_an_optimizer_forgets_the_old_place_of_a_code() -> None:
    def drift(forget: bool) -> float:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(2, 3, codebook_update="gradient")
        set_codebook(quantizer, torch.tensor([[0.0, 0.0], [8.0, 8.0], [-8.0, 8.0]]))
        optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.1, weight_decay=0.0)
        for seed in range(20):  # the second code is drawn to the upper right, so that its moments are
            quantizer(noise(1, 2, 4, 4, seed=seed) + 12).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        others = quantizer.codebook.detach()[[0, 2]].clone()
        quantizer.revival_threshold = 0.9
        aged(quantizer, [0, 999, 0], latents_a_code=40_000)
        latents = noise(1, 2, 4, 4)
        quantizer(latents).loss.backward()
        revived = quantizer.codebook.detach()[1].clone()
        assert (revived == as_rows(latents)).all(dim=1).any()
        if forget:
            moved = forget_moved_codes(quantizer, optimizer)
            assert {name: codes.tolist() for name, codes in moved.items()} == {"": [False, True, False]}
            assert forget_moved_codes(quantizer, optimizer) == {}
            state = optimizer.state[quantizer.codebook]  # type: ignore[index]
            assert (state["exp_avg"][1] == 0).all()
            assert (state["exp_avg_sq"][1] == 0).all()
        optimizer.step()
        assert (quantizer.codebook[0] != others[0]).all()  # the others learn on
        return (quantizer.codebook[1] - revived).abs().max().item()

    assert drift(forget=True) == 0
    assert drift(forget=False) > 0.02


# --- online clustering


def test_online_clustering_moves_only_unused_codes_to_nearest_latents() -> None:
    quantizer = VectorQuantizer(2, 3, codebook_update="gradient", online_clustering=True)
    start = torch.tensor([[0.0, 0.0], [50.0, 50.0], [-50.0, 50.0]])
    set_codebook(quantizer, start)
    latents = torch.tensor([[0.1, 0.2], [0.4, 0.3], [-0.5, 0.1], [0.2, -0.4]])
    quantizer(as_grid(latents))
    torch.testing.assert_close(quantizer.codebook[0], start[0], atol=1e-12, rtol=0)  # at K times its fair share
    pull = math.exp(-1e-3)
    torch.testing.assert_close(quantizer.codebook[1], start[1].lerp(latents[1], pull))
    torch.testing.assert_close(quantizer.codebook[2], start[2].lerp(latents[2], pull))
    moved = quantizer.take_moved_codes()
    assert moved is not None
    assert moved.tolist() == [False, True, True]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_online_clustering_raises_the_use_of_a_collapsed_codebook(metric: Any) -> None:
    def used(clustering: bool) -> int:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(
            3, 64, metric=metric, codebook_update="gradient", online_clustering=clustering, decay=0.9
        )
        set_codebook(quantizer, 5 + 0.1 * noise(64, 3, seed=3))
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
        for seed in range(60):
            quantizer(noise(4, 3, 8, 8, seed=seed)).loss.backward()
            forget_moved_codes(quantizer, optimizer)
            optimizer.step()
            optimizer.zero_grad()
        return len(quantizer.eval()(noise(16, 3, 8, 8, seed=99)).codes.unique())

    assert used(clustering=False) < 20
    assert used(clustering=True) > 40


# --- k-means start


def clusters(num: int = 16, each: int = 40) -> Tensor:
    """(num * each, 2) points in tight clusters far apart."""
    centres = 10 * noise(num, 1, 2, seed=4)
    return (centres + 0.05 * noise(num, each, 2, seed=5)).flatten(0, 1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_k_means_start_lowers_the_quantization_error(metric: Any, update: Any) -> None:
    def error(kmeans_start: bool) -> float:
        torch.manual_seed(0)
        quantizer = VectorQuantizer(2, 16, metric=metric, codebook_update=update, kmeans_start=kmeans_start)
        return float(quantizer(as_grid(clusters())).losses["commitment"])

    assert error(kmeans_start=True) < 0.5 * error(kmeans_start=False)


def test_the_k_means_start_happens_once_and_in_training_only() -> None:
    quantizer = VectorQuantizer(2, 8, kmeans_start=True, codebook_update="gradient")
    before = quantizer.codebook.detach().clone()
    quantizer.eval()(noise(1, 2, 4, 4))
    assert not quantizer.started
    assert torch.equal(quantizer.codebook, before)
    quantizer.train()(noise(1, 2, 4, 4))
    assert quantizer.started
    started = quantizer.codebook.detach().clone()
    assert not torch.equal(started, before)
    quantizer(noise(1, 2, 4, 4, seed=2))
    assert torch.equal(quantizer.codebook, started)


def test_a_start_is_not_repeated_after_loading() -> None:
    quantizer = VectorQuantizer(2, 8, kmeans_start=True)
    quantizer(noise(1, 2, 4, 4))
    other = VectorQuantizer(2, 8, kmeans_start=True)
    other.load_state_dict(quantizer.state_dict())
    assert other.started


def test_k_means_statistics_fit_its_codebook() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 16, kmeans_start=True, decay=0.99)
    quantizer(as_grid(clusters()))
    torch.testing.assert_close(
        quantizer.embed_sum / quantizer.cluster_size.unsqueeze(1), quantizer.codebook, rtol=1e-4, atol=1e-5
    )
    # The start weighs as one step: two steps of 640 latents, at 1 - decay each.
    assert quantizer.cluster_size.sum().item() == pytest.approx(0.01 * 640 + 0.01 * 0.99 * 640, rel=0.01)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_clusters_without_latents_are_no_trouble(metric: Any) -> None:
    quantizer = VectorQuantizer(2, 8, metric=metric, kmeans_start=True)
    out = quantizer(as_grid(torch.tensor([[3.0, 4.0], [-3.0, 4.0]]).repeat(20, 1)))  # two places for eight centres
    assert torch.isfinite(quantizer.codebook).all()
    assert out.losses["commitment"] < 1e-6


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_fewer_latents_than_codes_are_no_trouble(metric: Any) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 64, metric=metric, kmeans_start=True)
    quantizer(noise(1, 4, 2, 3))
    assert torch.isfinite(quantizer.codebook).all()
    assert len(quantizer.codebook.unique(dim=0)) == 64
    one = VectorQuantizer(4, 8, metric=metric, kmeans_start=True)
    assert one(noise(1, 4, 1, 1)).losses["commitment"] < 1e-6


# --- empty batches, narrow and wide types


@pytest.mark.parametrize("name", VQ)
def test_an_empty_batch_teaches_nothing_and_costs_nothing(name: str) -> None:
    quantizer = make(name).train()
    quantizer(noise_for(quantizer))
    before = copy.deepcopy(quantizer.state_dict())
    latents = torch.zeros(0, quantizer.dim, 2, 3).requires_grad_()
    out = quantizer(latents)
    (out.loss + out.latents.sum()).backward()
    assert out.codes.shape == (0, 2, 3)
    assert all(loss == 0 for loss in [*out.losses.values(), out.loss])
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_k_means_start_waits_for_latents(update: Any) -> None:
    quantizer = VectorQuantizer(2, 8, codebook_update=update, kmeans_start=True, revival_threshold=0.5)
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(torch.zeros(0, 2, 4, 4))
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    quantizer(noise(1, 2, 4, 4))
    assert quantizer.started


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", VQ)
def test_a_module_of_another_type_trains(name: str, dtype: torch.dtype) -> None:
    """Statistics stay float32 in a narrow module, so an EMA codebook there is the one of a float32 module."""
    quantizer, plain = make(name).to(dtype).train(), make(name).train()
    for seed in range(3):
        latents = noise_for(quantizer, seed=seed).to(dtype).requires_grad_()
        out = quantizer(latents)
        (out.loss + out.latents.sum()).backward()
        plain(latents.detach().float())
        assert torch.isfinite(out.loss)
        assert latents.grad is not None
        assert torch.isfinite(latents.grad).all()
    floats = [buffer for buffer in quantizer.buffers() if buffer.is_floating_point()]
    assert all(buffer.dtype == torch.promote_types(dtype, torch.float32) for buffer in floats)
    if name.endswith("ema") and dtype != torch.float64:
        theirs = plain.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in quantizer.state_dict().items())
    quantizer.eval()
    out = quantizer(latents)
    assert torch.equal(quantizer.lookup(out.codes).to(out.latents.dtype), out.latents)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_narrow_module_starts_and_restarts_codes(update: Any) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        3, 16, codebook_update=update, decay=0.2, kmeans_start=True, revival_threshold=0.5
    ).bfloat16()
    for seed in range(3):
        quantizer(noise(1, 3, 4, 8, seed=seed).bfloat16() + 5 * seed)
    assert quantizer.codebook.max() > 5
    assert torch.isfinite(quantizer.codebook).all()


# --- what is refused

INDEX_PROPAGATION = {"metric": "dot", "estimator": "index_propagation", "codebook_update": "gradient"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"commitment_weight": 0.0}, "an EMA codebook with commitment_weight 0 diverges.*0.25 is usual"),
        ({"codebook_update": "gradient", "codebook_weight": 0.0}, "codebook_weight 0 never learns"),
        ({"metric": "manhattan"}, "metric is 'manhattan', expected 'euclidean', 'cosine' or 'dot'"),
        ({"estimator": "gumbel"}, "estimator is 'gumbel', expected 'straight_through', 'rotation' or 'index_prop"),
        ({"codebook_update": "sgd"}, "codebook_update is 'sgd', expected 'ema', 'gradient', 'projection' or 'frozen'"),
        ({"metric": "dot"}, "the longest codes take all latents.*give estimator='index_propagation'"),
        (
            {"estimator": "index_propagation", "metric": "cosine"},
            "index propagation learns every code.*give metric='dot'",
        ),
        (
            {"estimator": "index_propagation", "metric": "dot", "codebook_update": "projection"},
            "with metric='dot' and codebook_update='projection'",
        ),
        (INDEX_PROPAGATION | {"kmeans_start": True}, "kmeans_start puts codes where latents are"),
        (
            {"codebook_update": "projection", "kmeans_start": True, "revival_threshold": 0.1},
            "kmeans_start and revival_threshold moves single codes.*'projection' is fixed noise",
        ),
        ({"codebook_update": "frozen", "online_clustering": True}, "online_clustering moves single codes"),
        ({"codebook_update": "projection", "codebook_weight": 0.0}, "a projection codebook .* never learns"),
        ({"codebook_update": "frozen", "commitment_weight": 0.0}, "a frozen codebook .* diverges"),
        ({"online_clustering": True, "codebook_update": "ema"}, "moving averages put them back"),
        (
            {"codebook_update": "gradient", "online_clustering": True, "revival_threshold": 0.1},
            "both move codes that are not used",
        ),
        ({"entropy_weight": -0.1}, "entropy_weight is -0.1, expected greater than or equal to 0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature is 0.0, expected greater than 0"),
        ({"eps": 0.0}, "eps is 0.0, expected greater than 0"),
        ({"eps": -1e-5}, "eps is -1e-05"),
        ({"eps": math.inf}, "eps is inf"),
        ({"eps": math.nan}, "eps is nan"),
        ({"decay": 1.0}, "decay is 1.0, expected less than 1"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"decay": math.nan}, "decay is nan"),
        ({"commitment_weight": -1.0}, "commitment_weight is -1.0, expected greater than or equal to 0"),
        ({"commitment_weight": math.nan}, "commitment_weight is nan, expected a finite number"),
        ({"codebook_weight": math.inf}, "codebook_weight is inf, expected a finite number"),
        ({"revival_threshold": 1.0}, "revival_threshold is 1.0, expected less than 1"),
        ({"num_codes": 0}, "num_codes is 0, expected greater than or equal to 1"),
        ({"dim": 0}, "dim is 0"),
    ],
)
def test_unsafe_choices_are_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(**({"dim": 4, "num_codes": 8} | options))


def test_a_cosine_codebook_needs_no_commitment() -> None:
    assert VectorQuantizer(4, 8, metric="cosine", commitment_weight=0.0).loss_weights == {"commitment": 0.0}


def test_at_decay_0_an_unused_code_goes_to_the_origin() -> None:
    quantizer = VectorQuantizer(2, 2, decay=0.0)
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    quantizer(torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[2.0, 1.0], [0.0, 0.0]]), atol=1e-4, rtol=0)


# --- several ranks

DISTRIBUTED: dict[str, dict[str, Any]] = {
    "ema": {"decay": 0.8},
    "cosine-ema": {"decay": 0.8, "metric": "cosine"},
    "gradient": {"codebook_update": "gradient"},
    "projection": {"codebook_update": "projection"},
    "index-propagation": {"metric": "dot", "estimator": "index_propagation", "codebook_update": "gradient"},
    "clustering": {"codebook_update": "gradient", "online_clustering": True},
    "kmeans": {"kmeans_start": True},
    "cosine-kmeans": {"kmeans_start": True, "metric": "cosine"},
    "kmeans-of-few-places": {"kmeans_start": True},  # clusters stay empty and keep the latent that was drawn
    "kmeans-of-few-latents": {"kmeans_start": True},
    "kmeans-revival": {"decay": 0.2, "kmeans_start": True, "revival_threshold": 0.5},
    "gradient-kmeans-revival": {
        "decay": 0.2,
        "codebook_update": "gradient",
        "kmeans_start": True,
        "revival_threshold": 0.5,
    },
}
# Images of each rank at each step. Means of gradients over ranks are those of the joint batch where shares are equal.
EVEN = [(2, 2), (2, 2), (2, 2)]
UNEVEN = [(3, 1), (4, 0), (1, 3)]


def train_on_rank(rank: int, folder: Path) -> None:
    """Train each quantizer on one rank's share; runs in a process of its own and writes what became of them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        trained = {(name, uneven): train(name, rank, UNEVEN if uneven else EVEN) for name, uneven in cases()}
        torch.save(trained, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def cases() -> list[tuple[str, bool]]:
    by_gradient = ("gradient", "projection", "index-propagation", "clustering", "gradient-kmeans-revival")
    return [(name, uneven) for name in DISTRIBUTED for uneven in (False, True) if not (uneven and name in by_gradient)]


def train(name: str, rank: int, shares: list[tuple[int, int]]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    # More codes than either rank has latents at first, fewer than both have.
    quantizer = VectorQuantizer(3, 100 if name == "kmeans-of-few-latents" else 40, **DISTRIBUTED[name])
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.5) if list(quantizer.parameters()) else None
    torch.manual_seed(100 + rank)  # ranks draw different numbers, as they do in a real run
    for seed, share in enumerate(shares):
        batch = noise(4, 3, 4, 4, seed=seed) + 5 * seed  # on the move, so that codes die
        if name == "kmeans-of-few-places":
            batch = batch[:, :1].sign().expand_as(batch)  # two
        first = sum(share[:rank])
        out = quantizer(batch[first : first + share[rank]])
        if optimizer is not None:
            out.loss.backward()
            average_gradients(quantizer)
            forget_moved_codes(quantizer, optimizer)
            optimizer.step()
            optimizer.zero_grad()
    return dict(quantizer.state_dict())


def average_gradients(quantizer: VectorQuantizer) -> None:
    if dist.is_initialized():
        for parameter in quantizer.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def test_codebooks_of_all_ranks_equal_that_of_the_joint_batch(tmp_path: Path) -> None:
    """The first rank draws, as the one process does, so that even k-means and revival come out alike."""
    torch.multiprocessing.spawn(train_on_rank, args=(tmp_path,), nprocs=2)
    first, second = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    for case in cases():
        joint = train(case[0], rank=0, shares=[(4, 0)] * 3)
        for key, value in first[case].items():
            assert torch.equal(value, second[case][key]), (case, key)
            torch.testing.assert_close(value, joint[key], rtol=1e-4, atol=1e-5, msg=f"{case} {key}")
    for name in ("kmeans-revival", "gradient-kmeans-revival"):
        assert first[name, False]["latents_seen"] == 3 * 64
        assert first[name, False]["codebook"].max() > 5  # codes were restarted on latents of the last step


APART: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: VectorQuantizer(3, 20, decay=0.8),
    "gradient": lambda: VectorQuantizer(3, 20, codebook_update="gradient"),
    "projection": lambda: VectorQuantizer(3, 20, codebook_update="projection"),
    "frozen": lambda: VectorQuantizer(3, 20, codebook_update="frozen"),
    "kmeans": lambda: VectorQuantizer(3, 20, kmeans_start=True),
    "residual": lambda: ResidualQuantizer([VectorQuantizer(3, 20) for _ in range(2)]),
    "residual-fsq-first": lambda: ResidualQuantizer([FSQ([5, 4, 5]), VectorQuantizer(3, 100)]),
    "product": lambda: ProductQuantizer([FSQ([5, 4]), VectorQuantizer(2, 20)]),
}


def start_apart(rank: int, folder: Path) -> None:
    """Train on ranks that were seeded apart, with bad latents on the second; writes states and errors."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        found: dict[str, Any] = {}
        for name, build in APART.items():
            torch.manual_seed(rank)
            quantizer = build()
            made = copy.deepcopy(quantizer.state_dict())
            errors = []
            for bad in (math.nan, math.inf):
                latents = noise(2, quantizer.dim, 4, 4, seed=rank)
                latents[0, -1, 1, 1] = bad if rank == 1 else 0.0
                try:
                    quantizer(latents)
                except ValueError as error:
                    errors.append(str(error))
            refused = copy.deepcopy(quantizer.state_dict())
            for seed in range(2):
                quantizer(noise(2, quantizer.dim, 4, 4, seed=10 * seed + rank))
            found[name] = errors, made, refused, quantizer.state_dict()
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_differently_seeded_ranks_become_equal_and_refuse_together(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(start_apart, args=(tmp_path,), nprocs=2)
    first, second = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    for name in APART:
        errors, made, refused, trained = first[name]
        other_errors, other_made, _, other_trained = second[name]
        assert len(errors) == len(other_errors) == 2, name
        assert all("another rank refused its latents" in error for error in errors), name
        assert all("latents" in error and "another rank" not in error for error in other_errors), name
        assert any(not torch.equal(made[key], other_made[key]) for key in made), name
        for key in made:
            assert torch.equal(refused[key], made[key]), (name, key)  # nothing was learned
            assert torch.equal(trained[key], other_trained[key]), (name, key)
        learns = name in ("ema", "kmeans", "residual", "residual-fsq-first", "product")
        assert any(not torch.equal(trained[key], made[key]) for key in made if "codebook" in key) == learns, name


# --- codes that are searched as they are and looked up at length 1


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("update", ["ema", "gradient", "projection"])
def test_unit_lookup_searches_by_distance_and_looks_up_directions(estimator: Any, update: Any) -> None:
    torch.manual_seed(0)
    plain = VectorQuantizer(4, 16, estimator=estimator, codebook_update=update).eval()
    unit = VectorQuantizer(4, 16, estimator=estimator, codebook_update=update, unit_lookup=True).eval()
    unit.load_state_dict(plain.state_dict())
    latents = torch.randn(2, 4, 3, 5, requires_grad=True)
    found, expected = unit(latents), plain(latents)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(unit.lookup(found.codes), found.latents)
    torch.testing.assert_close(found.latents, F.normalize(expected.latents, dim=1))
    torch.testing.assert_close(found.losses, expected.losses)
    (gradient,) = torch.autograd.grad(found.latents.sum(), latents)
    assert gradient.abs().sum() > 0
    if estimator == "straight_through":
        assert torch.equal(gradient, torch.ones_like(latents))


def test_unit_lookup_is_in_the_identity_where_it_is_set() -> None:
    plain, unit = VQConfig(dim=4), VQConfig(dim=4, unit_lookup=True)
    assert list(plain.code_identity()) == ["kind", "dim", "num_codes", "metric"]
    assert unit.code_identity() == plain.code_identity() | {"unit_lookup": True}
    assert "unit_lookup" not in plain.model_dump()
    assert VQConfig(**unit.model_dump()) == unit


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_unit_lookup_is_refused_where_codes_are_directions_already(metric: str) -> None:
    with pytest.raises(ValueError, match="unit_lookup is for codes that are searched by Euclidean distance"):
        VQConfig.checked(
            metric=metric, unit_lookup=True, estimator="index_propagation" if metric == "dot" else "rotation"
        )
