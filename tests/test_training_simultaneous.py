"""The simultaneous update: both players get the gradients of the separate update, with fewer passes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from families import noise
from runs import GAN, VQ, tiny
from torch import Tensor, nn

from imtok.config.training import AdversarialConfig, AdversarialKind, GANQPConfig
from imtok.losses import ADVERSARIAL_LOSSES, Pairs, discriminator_loss, generator_loss
from imtok.training.adversarial import Adversary
from imtok.training.simultaneous import proportion
from imtok.training.state import TrainState
from imtok.training.step import accumulate_gradients, train_step

CPU = torch.device("cpu")
KINDS = {
    "patchgan": {"channels": 4, "layers": 2},
    "maskbit": {"kind": "maskbit", "channels": 32, "layers": 2},
    "stylegan": {"kind": "stylegan", "channels": 8},
}
CRITIC = {"penalty": {"weight": 10, "center": 1, "at": "interpolates"}}
ALWAYS = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0"]


@dataclass
class Turn:
    """What both players got of one batch."""

    backwards: int  # through the graph of the reconstructions, after one forward; 0: the separate update
    forwards: int
    gradients: list[Tensor]  # at the reconstructions, and of the discriminator's weights
    metrics: dict[str, Tensor]


def adversary_of(update: str, **settings: object) -> Adversary:
    torch.manual_seed(0)
    values = {"weight": 1.0, "start": 0, "warmup": 0, "ramp": 0, "lecam": 0, "discriminator": KINDS["patchgan"]}
    adversary = Adversary(AdversarialConfig(**values | {"update": update} | settings), 16, CPU, "fp32")
    adversary.lecam.real_mean.fill_(0.3)
    adversary.lecam.fake_mean.fill_(-0.2)
    return adversary


def take_turn(adversary: Adversary) -> Turn:
    """Go through one batch as a training step does."""
    torch.manual_seed(1)
    forwards = []
    adversary.discriminator.register_forward_pre_hook(lambda *_: forwards.append(1))
    images = noise(4, 3, 16, 16, seed=2).tanh()
    output = (images + 0.1 * noise(4, 3, 16, 16, seed=3)).requires_grad_()
    found = adversary.generator_loss(images, output, output, torch.zeros_like(output), output, 1.0, 0.5)
    fake = found.shared.fake
    metrics = adversary.accumulate_gradients(images, output.detach(), 0.5, found.shared)
    assert output.grad is None
    weights = [parameter.grad for parameter in adversary.discriminator.parameters()]
    backwards = 0 if fake is None else 2 if fake.requires_grad else 1
    return Turn(backwards, len(forwards), [found.gradient, *weights], found.metrics | metrics)


def both_turns(head: float = 1.0, **settings: object) -> tuple[Turn, Turn]:
    """Take a turn with each update, the weights of the discriminator's head multiplied."""
    turns = []
    for update in ("separate", "simultaneous"):
        adversary = adversary_of(update, **settings)
        layers = [module for module in adversary.discriminator.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        nn.init.zeros_(layers[-1].bias)
        layers[-1].weight.data.mul_(head)
        turns.append(take_turn(adversary))
    return turns[0], turns[1]


def check_equal(separate: Turn, simultaneous: Turn) -> None:
    assert separate.gradients[0].abs().max() > 0
    for expected, found in zip(separate.gradients, simultaneous.gradients, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, atol=5e-6 * scale, rtol=0)
    assert separate.metrics.keys() == simultaneous.metrics.keys()
    for name, value in separate.metrics.items():
        torch.testing.assert_close(torch.as_tensor(simultaneous.metrics[name]), torch.as_tensor(value), msg=name)


@pytest.mark.parametrize("lecam", [0.0, 0.1], ids=["plain", "lecam"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
def test_both_players_get_the_gradients_of_separate_forwards(loss: AdversarialKind, kind: str, lecam: float) -> None:
    critic = CRITIC if loss == "wasserstein" else {}
    separate, simultaneous = both_turns(loss=loss, discriminator=KINDS[kind], lecam=lecam, **critic)
    any_map = {"hinge", "wasserstein", "gan_qp"} | ({"saturating"} if lecam == 0 else set())
    assert simultaneous.backwards == (1 if kind == "stylegan" or loss in any_map else 2)
    assert (separate.forwards, simultaneous.forwards) == (3, 2)
    check_equal(separate, simultaneous)


@pytest.mark.parametrize("loss", ["hinge", "gan_qp", "non_saturating"])
def test_penalties_on_reconstructions_do_not_reach_the_generator(loss: AdversarialKind) -> None:
    penalty = {"weight": 5, "at": "both"}
    _, without = both_turns(loss=loss)
    separate, simultaneous = both_turns(loss=loss, penalty=penalty, lecam=0.1)
    check_equal(separate, simultaneous)
    scale = float(without.gradients[0].abs().max())
    torch.testing.assert_close(simultaneous.gradients[0], without.gradients[0], atol=5e-6 * scale, rtol=0)


def test_two_backwards_give_the_very_bits() -> None:
    separate, simultaneous = both_turns(head=100.0)  # hinge with logits below -1
    assert simultaneous.backwards == 2
    assert all(map(torch.equal, simultaneous.gradients, separate.gradients))


def test_a_logit_at_which_the_discriminator_rests_takes_two_backwards() -> None:
    separate, simultaneous = both_turns(head=0.0, loss="least_squares", discriminator=KINDS["stylegan"])
    assert simultaneous.backwards == 2
    assert separate.gradients[1].abs().max() == 0  # the head is 0: nothing passes it
    assert all(map(torch.equal, simultaneous.gradients, separate.gradients))


@pytest.mark.parametrize(("loss", "backwards"), [("hinge", 1), ("least_squares", 2), ("gan_qp", 2)])
def test_batch_statistics_need_one_factor_for_the_batch(loss: AdversarialKind, backwards: int) -> None:
    separate, simultaneous = both_turns(loss=loss, discriminator=KINDS["patchgan"] | {"norm": "batch"})
    assert simultaneous.backwards == backwards
    check_equal(separate, simultaneous)


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_spectral_normalisation_agrees_while_its_iteration_is_held(loss: AdversarialKind) -> None:
    turns = []
    for update in ("separate", "simultaneous"):
        discriminator = KINDS["patchgan"] | {"spectral_norm": True, "norm": "none"}
        adversary = adversary_of(update, loss=loss, discriminator=discriminator)
        adversary.discriminator.eval()
        turns.append(take_turn(adversary))
    check_equal(*turns)


@pytest.mark.parametrize(("loss", "backwards", "forwards"), [("hinge", 1, 2), ("non_saturating", 0, 3)])
def test_a_compiled_discriminator_runs_again_instead_of_going_back_twice(
    loss: AdversarialKind, backwards: int, forwards: int
) -> None:
    """It is marked as compiled and stays as it is, since compiling takes seconds."""
    turns = [adversary_of("separate", loss=loss), adversary_of("simultaneous", loss=loss)]
    compiled = turns[1].discriminator
    compiled._compiled_call_impl = compiled._call_impl  # type: ignore[assignment]
    separate, simultaneous = map(take_turn, turns)
    assert (simultaneous.backwards, simultaneous.forwards) == (backwards, forwards)
    check_equal(separate, simultaneous)


FACTORS = {
    "wasserstein": lambda *_: torch.full((4,), -1.0),
    "saturating": lambda *_: torch.full((4,), -1.0),
    "hinge": lambda *_: torch.full((4,), -2.0),
    "non_saturating": lambda logits, _: -2 * torch.exp(-logits),
    "least_squares": lambda logits, _: (logits - 1) / logits,
    "gan_qp": lambda logits, pairs: -1 / (1 - pairs.differences(2 * logits, logits) / pairs.scales()),
}


@pytest.mark.parametrize("loss", FACTORS)
def test_the_factor_of_each_loss_is_that_of_its_formula(loss: AdversarialKind) -> None:
    logits = torch.tensor([-0.9, -0.3, 0.4, 2.5]).requires_grad_()
    images = noise(4, 3, 8, 8, seed=1)
    pairs = Pairs(images, images + 0.1 * noise(4, 3, 8, 8, seed=2), GANQPConfig())
    (generator,) = torch.autograd.grad(generator_loss(loss, logits), logits)
    (discriminator,) = torch.autograd.grad(discriminator_loss(loss, 2 * logits.detach(), logits, pairs), logits)
    found = proportion(generator, discriminator)
    assert found is not None
    torch.testing.assert_close(found.flatten(), FACTORS[loss](logits.detach(), pairs))
    assert ADVERSARIAL_LOSSES[loss].factor in (None, float(found[0]))


@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [3.0, 3.1]]),
        ([[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [0.0, 0.0]]),
        ([[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [1e-9, 1e-9]]),
        ([[1.0, 1.0], [1.0, torch.nan]], [[2.0, 2.0], [2.0, 2.0]]),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 2.0]]),
    ],
    ids=["unequal", "zero", "vanishing", "nan", "both-zero"],
)
def test_gradients_without_one_factor_have_none(generator: list[list[float]], discriminator: list[list[float]]) -> None:
    assert proportion(torch.tensor(generator), torch.tensor(discriminator)) is None


def test_each_image_has_its_own_factor_unless_they_mix() -> None:
    generator, discriminator = torch.ones(2, 3), torch.tensor([[2.0] * 3, [4.0] * 3])
    found = proportion(generator, discriminator)
    assert found is not None
    assert found.shape == (2, 1, 1, 1)
    assert found.flatten().tolist() == [0.5, 0.25]
    assert proportion(generator, discriminator, mixed=True) is None
    mixed = proportion(generator, torch.full((2, 3), 2.0), mixed=True)
    assert mixed is not None
    assert mixed.flatten().tolist() == [0.5]


@pytest.mark.parametrize(
    "settings",
    [
        ["adversarial.adaptive=true"],
        ["accumulate=2", *VQ],
        ["precision=bf16", "adversarial.lecam=0", "adversarial.discriminator.kind=stylegan"],
        ["adversarial.loss=gan_qp", "adversarial.gan_qp.pairing=independent"],
    ],
    ids=["adaptive", "accumulated-vq", "bf16-stylegan", "independent-pairs"],
)
def test_a_whole_step_has_the_gradients_of_the_separate_update(settings: list[str]) -> None:
    states = []
    for update in ("separate", "simultaneous"):
        torch.manual_seed(0)
        state = TrainState(tiny(*GAN, *ALWAYS, f"adversarial.update={update}", *settings), CPU)
        images = noise(8, 3, 16, 16, seed=1).tanh()
        for part in images.split(8 // state.config.accumulate):
            accumulate_gradients(state, part)
        states.append(state)
    pairs = list(zip(*(state.tokenizer.parameters() for state in states), strict=True))
    assert states[0].adversary is not None
    assert states[1].adversary is not None
    pairs += zip(*(state.adversary.discriminator.parameters() for state in states if state.adversary), strict=True)
    for expected, found in pairs:
        if expected.grad is not None:
            scale = float(expected.grad.abs().max())
            torch.testing.assert_close(found.grad, expected.grad, atol=1e-5 * scale, rtol=0)


def test_training_by_two_backwards_has_the_weights_of_separate_updates() -> None:
    weights = []
    for update in ("separate", "simultaneous"):
        torch.manual_seed(0)
        settings = [f"adversarial.update={update}", "adversarial.loss=non_saturating", "adversarial.r1=0"]
        state = TrainState(tiny(*GAN, *ALWAYS, *settings), CPU)
        for number in range(3):
            generator = torch.Generator().manual_seed(number)
            train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator))
        assert state.adversary is not None
        weights.append([*state.tokenizer.parameters(), *state.adversary.discriminator.parameters()])
    assert all(map(torch.equal, *weights))
