"""Adversarial training: its schedule, what each side learns from, and that nothing of it is lost at a restart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from making import fill
from runs import GAN, VQ, logged, run_until, tiny
from torch import Tensor, nn

from imtok.config import TrainConfig
from imtok.config.training import AdversarialConfig, DiscriminatorConfig, PenaltyConfig, PenaltyPlace
from imtok.errors import ConfigError
from imtok.losses import penalty_points
from imtok.networks import MaskBitDiscriminator, PatchDiscriminator, StyleGANDiscriminator
from imtok.training import train
from imtok.training.adversarial import Adversary, build_discriminator
from imtok.training.checkpoint import unpack
from imtok.training.state import TrainState
from imtok.training.step import accumulate_gradients, train_step

CPU = torch.device("cpu")
NO_R1 = "adversarial.r1=0"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


def batch(seed: int = 0, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)


def state_of(*settings: str) -> TrainState:
    torch.manual_seed(0)
    return TrainState(tiny(*GAN, *settings), CPU)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["adversarial.adaptive=true"],
        ["adversarial.discriminator.norm=batch", "adversarial.loss=non_saturating"],
        ["adversarial.discriminator.norm=act", "adversarial.loss=least_squares"],
        ["accumulate=2", *VQ],
        ["precision=bf16", "adversarial.discriminator.kind=stylegan"],
        ["adversarial.loss=wasserstein", "adversarial.penalty={weight: 10, center: 1, at: interpolates, every: 2}"],
        ["adversarial.loss=gan_qp", "adversarial.discriminator.spectral_norm=true", "precision=bf16"],
        ["adversarial.critic_steps=3", *VQ],
        ["adversarial.update=simultaneous"],
    ],
    ids=[
        *("fixed", "adaptive", "batch-norm", "act-norm", "accumulated-vq", "bf16-stylegan", "wgan-gp"),
        *("spectral-norm", "critic-steps", "simultaneous"),
    ],
)
def test_a_stopped_and_resumed_adversarial_run_equals_an_unbroken_one(
    settings: list[str], pictures: Path, tmp_path: Path
) -> None:
    config = tiny(*GAN, *settings)
    run_until([], pictures, tmp_path / "unbroken", config)
    run_until([16, 40, 72], pictures, tmp_path / "broken", config)
    for name in ("metrics.jsonl", "tokenizer/model.safetensors", "best/model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_the_discriminator_learns_alone_before_its_weight_ramps() -> None:
    adversary = Adversary(AdversarialConfig(weight=0.8, start=0.4, warmup=0.1, ramp=0.2), 32, CPU, "fp32")
    assert [adversary.learns(progress) for progress in (0.0, 0.29, 0.31, 1.0)] == [False, False, True, True]
    assert [adversary.weight(progress) for progress in (0.0, 0.39, 0.5, 0.6, 1.0)] == pytest.approx(
        [0, 0, 0.4, 0.8, 0.8]
    )


def test_what_is_trained_follows_the_schedule() -> None:
    state = state_of("images=80")  # steps of 8: the discriminator from the second on, the generator from the third
    assert state.adversary is not None
    moved, weights = [], []
    for number in range(6):
        before = [p.detach().clone() for p in state.adversary.discriminator.parameters()]
        train_step(state, batch(number))
        after = state.adversary.discriminator.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        means = state.metrics.means()
        state.metrics.clear()
        weights.append(means.get("adversarial/weight", 0.0))
    assert moved == [False, True, True, True, True, True]
    assert weights[:2] == [0, 0]
    assert weights[2:] == pytest.approx([0.1 * share for share in (0.0, 0.4, 0.8, 1.0)], abs=1e-6)


def test_without_its_weight_there_is_no_discriminator(pictures: Path, tmp_path: Path) -> None:
    state = TrainState(tiny(), CPU)
    assert state.adversary is None
    train_step(state, batch())
    assert not any(name.startswith("adversarial/") for name in state.metrics.means())


def test_the_generator_gets_the_gradient_of_the_weighted_sum() -> None:
    """Against the plain way: one loss, one backward pass."""
    state, plain = (state_of("adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0") for _ in range(2))
    assert plain.adversary is not None
    images = batch().float() / 127.5 - 1
    reconstructions, quantized = plain.tokenizer(images)
    logits = plain.adversary.discriminator(reconstructions)
    loss = (reconstructions - images).square().mean() + quantized.loss - 0.1 * logits.mean()
    loss.backward()
    accumulate_gradients(state, images)
    for expected, found in zip(plain.tokenizer.parameters(), state.tokenizer.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-7, rtol=1e-4)


def test_the_adaptive_weight_compares_gradients_at_the_last_layer() -> None:
    state = state_of("adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0", "adversarial.adaptive=true")
    assert state.adversary is not None
    images = batch().float() / 127.5 - 1
    reconstructions, _ = state.tokenizer(images)
    last = state.tokenizer.decoder.conv_out.weight
    mse = (reconstructions - images).square().mean()
    adversarial = -state.adversary.discriminator(reconstructions).mean()
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (mse, adversarial)]
    figures = accumulate_gradients(state, images)
    expected = min(float(norms[0] / (norms[1] + 1e-4)), 100.0)
    assert float(figures["adversarial/adaptive"]) == pytest.approx(expected, rel=1e-4)
    assert float(figures["adversarial/weight"]) == pytest.approx(0.1 * expected, rel=1e-4)


def test_the_adaptive_weight_is_clamped() -> None:
    adaptive = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0", "adversarial.adaptive=true"]
    state = state_of(*adaptive, "adversarial.adaptive_max=0.001")
    assert float(accumulate_gradients(state, batch().float() / 127.5 - 1)["adversarial/adaptive"]) == pytest.approx(
        0.001
    )


def test_the_discriminator_learns_to_tell_images_from_reconstructions() -> None:
    state = state_of(
        "images=1600", "adversarial.weight=1e-9", "adversarial.learning_rate=0.01", "adversarial.warmup=0.25"
    )
    accuracies = []
    for number in range(60):
        train_step(state, batch(number))
        accuracies.append(state.metrics.means().get("adversarial/accuracy", 0.5))
        state.metrics.clear()
    assert sum(accuracies[-10:]) / 10 > 0.9


def test_lazy_r1_is_logged_by_its_own_mean() -> None:
    state = state_of("adversarial.start=0", "adversarial.warmup=0", "adversarial.r1_every=3")
    for number in range(7):
        train_step(state, batch(number))
    count = float(state.metrics.sums["adversarial/r1"][1])
    assert count == 3
    assert float(state.metrics.sums["adversarial/discriminator"][1]) == 7


def test_r1_reaches_the_discriminator() -> None:
    images = batch().float() / 127.5 - 1
    gradients = []
    for r1 in (0.0, 100.0):
        torch.manual_seed(0)
        config = AdversarialConfig(weight=1, r1=r1, lecam=0, discriminator=DiscriminatorConfig(channels=4, layers=1))
        adversary = Adversary(config, 16, CPU, "fp32")
        adversary.accumulate_gradients(images, images.flip(0), 1.0)
        gradients.append(next(adversary.discriminator.parameters()).grad)
    assert not torch.allclose(gradients[0], gradients[1])


def test_r1_does_not_grow_with_the_number_of_logits() -> None:
    """A discriminator of one logit a pixel, each half the sum of that pixel's colours."""
    penalties = []
    for size in (16, 32):
        config = AdversarialConfig(weight=1, r1=1, discriminator=DiscriminatorConfig(channels=4, layers=1))
        adversary = Adversary(config, size, CPU, "fp32")
        adversary.discriminator = nn.Conv2d(3, 1, 1)
        nn.init.constant_(adversary.discriminator.weight, 0.5)
        black = torch.zeros(2, 3, size, size)
        penalties.append(float(adversary.accumulate_gradients(black, black, 1.0)["r1"]))
    assert penalties == pytest.approx([3 * 0.25 / 16**2, 3 * 0.25 / 32**2])


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    """All tensors of a checkpoint but those of the log and of chance."""
    values = unpack(state.to_bytes({}))
    left_out = ("window.", "skipped.", "random.")
    return {k: v for k, v in values.items() if isinstance(v, Tensor) and not k.startswith(left_out)}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of a checkpoint that changed."""
    return {name.split(".")[0] for name in after if not torch.equal(before.get(name, torch.empty(0)), after[name])}


ALONE = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.critic_steps=3"]


@pytest.mark.parametrize("extra", [[], ["accumulate=2"], ["adversarial.discriminator.spectral_norm=true"]])
def test_steps_of_the_discriminator_alone_leave_the_tokenizer(extra: list[str]) -> None:
    state = state_of(*ALONE, *VQ, *extra)
    moved = []
    for number in range(7):
        before = tensors_of(state)
        train_step(state, batch(number))
        moved.append(changed(before, tensors_of(state)))
        assert state.seen == 8 * (number + 1)
        assert state.tokenizer.quantizer.training
    alone = {"discriminator", "discriminator_optimizer", "lecam"}
    assert [found == alone for found in moved] == [False, True, True, False, True, True, False]
    assert {"tokenizer", "average", "optimizer"} <= moved[3]
    assert state.steps == 3
    assert float(state.metrics.sums["loss"][1]) == 3
    assert float(state.metrics.sums["adversarial/discriminator"][1]) == 7


def test_a_step_alone_that_is_not_finite_changes_nothing() -> None:
    state = state_of(*ALONE, "adversarial.discriminator.spectral_norm=true")
    train_step(state, batch())
    before = tensors_of(state)
    decoder = state.tokenizer.decoder.get_submodule("conv_out")
    poison = decoder.register_forward_hook(lambda _, __, output: output * math.nan)
    train_step(state, batch(1))
    poison.remove()
    assert changed(before, tensors_of(state)) == set()
    assert int(state.skipped.all) == 1
    assert state.adversary is not None
    assert (state.seen, state.adversary.steps) == (16, 2)


def test_before_it_is_active_the_discriminator_takes_no_steps_alone() -> None:
    state = state_of("images=80", "adversarial.start=0.5", "adversarial.warmup=0.5", "adversarial.critic_steps=3")
    for number in range(10):
        train_step(state, batch(number))
    assert state.steps == 5 + 2  # of the discriminator's steps 5 to 9, counted from 0, those at multiples of 3


def test_every_line_of_the_log_has_a_tokenizer_step(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "run", tiny(*GAN, *ALONE, "images=200"))
    lines = [line for line in logged(tmp_path / "run") if "val/psnr" not in line]
    assert [line["images"] for line in lines] == [*range(24, 200, 24), 200]
    assert all("loss" in line for line in lines[:-1])


@pytest.mark.parametrize("at", get_args(PenaltyPlace))
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_penalties_add_the_gradient_of_their_formula(at: PenaltyPlace, center: float) -> None:
    images = batch().float() / 127.5 - 1
    reconstructions = images.flip(0)
    found, values = [], []
    for weight in (0.0, 5000.0):
        torch.manual_seed(0)
        penalty = PenaltyConfig(weight=weight, at=at, center=center, every=3)
        config = AdversarialConfig(weight=1, penalty=penalty, discriminator=DiscriminatorConfig(channels=4, layers=1))
        adversary = Adversary(config, 16, CPU, "fp32")
        torch.manual_seed(1)
        values.append(adversary.accumulate_gradients(images, reconstructions, 0.5).get("penalty"))
        found.append([parameter.grad for parameter in adversary.discriminator.parameters()])
    torch.manual_seed(1)
    total = torch.zeros(())
    for points in penalty_points(at, images, reconstructions):
        leaf = points.clone().requires_grad_()
        means = adversary.discriminator(leaf).mean(dim=(1, 2, 3))
        (slope,) = torch.autograd.grad(means.sum(), leaf, create_graph=True)
        total = total + (slope.square().sum(dim=(1, 2, 3)).sqrt() - center).square().mean()
    expected = torch.autograd.grad(0.5 * 15000 * total, list(adversary.discriminator.parameters()), allow_unused=True)
    assert values[0] is None
    torch.testing.assert_close(values[1], total.detach())
    for plain, penalised, difference in zip(*found, expected, strict=True):
        if difference is not None:
            torch.testing.assert_close(penalised - plain, difference, atol=1e-6, rtol=1e-3)
    assert any(each is not None and each.abs().max() > 0.01 for each in expected)


def test_penalties_between_their_steps_are_left_out() -> None:
    state = state_of("adversarial.start=0", "adversarial.warmup=0", "adversarial.penalty={weight: 1, every: 3}", NO_R1)
    for number in range(7):
        train_step(state, batch(number))
    assert float(state.metrics.sums["adversarial/penalty"][1]) == 3


@pytest.mark.parametrize("discriminator", ["patchgan", "stylegan", "maskbit"])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(discriminator: str) -> None:
    always = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0", "adversarial.r1=0"]
    always += ["adversarial.lecam=0", f"adversarial.discriminator.kind={discriminator}"]
    whole, parts = state_of(*always), state_of(*always, "accumulate=4")
    images = batch().float() / 127.5 - 1
    accumulate_gradients(whole, images)
    for part in images.split(2):
        accumulate_gradients(parts, part)
    for a, b in zip(whole.tokenizer.parameters(), parts.tokenizer.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-3)
    assert whole.adversary is not None
    assert parts.adversary is not None
    pairs = zip(whole.adversary.discriminator.parameters(), parts.adversary.discriminator.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (DiscriminatorConfig(channels=4, norm="batch"), PatchDiscriminator),
        (DiscriminatorConfig(kind="stylegan", channels=8), StyleGANDiscriminator),
        (DiscriminatorConfig(kind="maskbit", channels=32, layers=2), MaskBitDiscriminator),
    ],
)
def test_each_kind_of_discriminator_is_built(config: DiscriminatorConfig, kind: type[nn.Module]) -> None:
    assert isinstance(build_discriminator(config, 32), kind)


def test_crops_too_small_for_the_discriminator_are_refused(pictures: Path, tmp_path: Path) -> None:
    config = tiny(*GAN, "adversarial.discriminator.layers=6")
    with pytest.raises(ConfigError, match=r"adversarial\.discriminator: crops of 16 px are too small"):
        train([pictures], tmp_path / "run", config)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1, "start": 0.1, "warmup": 0.2}, "warmup 0.2 is longer"),
        ({"weight": 1, "start": 0.95, "ramp": 0.2}, "beyond the end"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "wasserstein"}, "needs a bound on its slope: set adversarial.penalty="),
        ({"loss": "wasserstein", "discriminator": {"spectral_norm": True}}, "other normalisation, whose weights"),
        (
            {"loss": "wasserstein", "discriminator": {"spectral_norm": True, "kind": "maskbit"}},
            "set adversarial.discriminator={kind: patchgan, norm: none} too",
        ),
        (
            {"loss": "wasserstein", "penalty": {"weight": 10}, "discriminator": {"norm": "batch"}},
            "judges each image alone: set adversarial.discriminator.norm=group",
        ),
        ({"r1": 1, "penalty": {"weight": 1, "at": "both"}}, "both penalise slopes at images; set adversarial.r1=0"),
    ],
)
def test_losses_and_penalties_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialConfig(weight=1, **settings)
    AdversarialConfig(weight=0, **settings)  # of no consequence without a discriminator


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "wasserstein", "penalty": {"weight": 10, "center": 1, "at": "interpolates"}},
        {"loss": "wasserstein", "r1": 1},
        {"loss": "wasserstein", "discriminator": {"spectral_norm": True, "norm": "none"}},
        {"loss": "wasserstein", "discriminator": {"spectral_norm": True, "kind": "stylegan"}},
        {"r1": 1, "penalty": {"weight": 1, "at": "reconstructions"}},
    ],
)
def test_critics_with_a_bound_on_their_slope_are_taken(settings: dict[str, Any]) -> None:
    assert AdversarialConfig(weight=1, **settings).enabled


def test_independent_pairs_of_one_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="two images or more in each part of a batch; raise batch_size, lower accumu"):
        tiny(*GAN, "adversarial.loss=gan_qp", "adversarial.gan_qp.pairing=independent", "accumulate=8")


def test_an_adversarial_run_logs_its_balance(pictures: Path, tmp_path: Path) -> None:
    last: dict[str, float] = {}
    config: TrainConfig = tiny(*GAN, "adversarial.adaptive=true")
    train([pictures], tmp_path / "run", config, progress=lambda p: last.update(p.metrics or {}))
    wanted = {"generator", "discriminator", "logits_real", "logits_fake", "accuracy", "weight", "adaptive", "lecam"}
    assert {f"adversarial/{name}" for name in wanted} <= last.keys()
    assert all(math.isfinite(value) for value in last.values())
    assert 0 <= last["adversarial/accuracy"] <= 1
