"""Losses against numbers that other projects' own code produced, at the tolerances stated with them.

Where a peer differs on purpose, the difference itself is asserted and its reason written down.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import Golden, load
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from vgg import empty_features

from imtok.losses import (
    AdversarialKind,
    LeCAM,
    PerceptualLoss,
    adaptive_weight,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
    logit_laplace_loss,
    map_pixels,
    r1_penalty,
    ramp,
    unmap_pixels,
)
from imtok.losses.perceptual import ImageNetScaling
from imtok.losses.reconstruction import L1Term
from imtok.networks import MaskBitDiscriminator, PatchDiscriminator

# --- adversarial losses


def image_means(logits: Tensor) -> Tensor:
    return logits.mean(dim=(1, 2, 3))


# Ours times a factor is theirs. lucidrains (muse) and Open-MAGVIT2 leave out the 1/2 of the discriminator's loss;
# Open-MAGVIT2 takes an image's mean logit.
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge_d": lambda real, fake: discriminator_loss("hinge", real, fake),
    "vanilla_d": lambda real, fake: discriminator_loss("non_saturating", real, fake),
    "generator": lambda _, fake: generator_loss("hinge", fake),
    "llamagen.hinge_d": lambda real, fake: discriminator_loss("hinge", real, fake),
    "llamagen.vanilla_d": lambda real, fake: discriminator_loss("non_saturating", real, fake),
    "llamagen.hinge_g": lambda _, fake: generator_loss("hinge", fake),
    "openmagvit2.non_saturate_d": lambda real, fake: (
        2 * discriminator_loss("non_saturating", image_means(real), image_means(fake))
    ),
    "openmagvit2.non_saturate_g": lambda _, fake: generator_loss("non_saturating", image_means(fake)),
    "muse.hinge_d": lambda real, fake: 2 * discriminator_loss("hinge", real, fake),
    "muse.bce_d": lambda real, fake: 2 * discriminator_loss("non_saturating", real, fake),
    "muse.bce_g": lambda _, fake: generator_loss("non_saturating", fake),
}


def loss_and_gradients(golden: Golden, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    real, fake = golden["in.real"].clone().requires_grad_(), golden["in.fake"].clone().requires_grad_()
    value = loss(real, fake)
    grads = torch.autograd.grad(value, (real, fake), materialize_grads=True)
    return {"loss": value.detach(), "grad_real": grads[0], "grad_fake": grads[1]}


@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_losses_and_their_gradients_are_the_peers(name: str) -> None:
    golden = load("gan_losses", "losses")
    for part, value in loss_and_gradients(golden, PAIRS[name]).items():
        golden.check(f"{name}.{part}", value)


def test_llamagens_non_saturating_losses_are_linear_and_ours_are_not() -> None:
    """Its cross entropy has logits and targets swapped: fakes teach its discriminator nothing."""
    golden = load("gan_losses", "losses")

    def swapped(targets: float, logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(torch.full_like(logits, targets), logits)

    for part, value in loss_and_gradients(golden, lambda real, fake: (swapped(1, real) + swapped(0, fake)) / 2).items():
        golden.check(f"llamagen.non_saturating_d.{part}", value)
    for part, value in loss_and_gradients(golden, lambda _, fake: swapped(1, fake)).items():
        golden.check(f"llamagen.non_saturating_g.{part}", value)
    ours = loss_and_gradients(golden, lambda real, fake: discriminator_loss("non_saturating", real, fake))
    assert golden["llamagen.non_saturating_d.grad_fake"].eq(0).all()
    assert ours["grad_fake"].gt(0).all()
    assert golden["llamagen.non_saturating_g.grad_fake"].unique().numel() == 1
    ours = loss_and_gradients(golden, lambda _, fake: generator_loss("non_saturating", fake))
    assert ours["grad_fake"].unique().numel() > 1


def test_the_start_of_tamings_discriminator_is_a_ramp_without_length() -> None:
    golden = load("gan_losses", "losses")
    golden.check("adopt_weight.before", torch.tensor(0.7 * ramp(9, 10, 0), dtype=torch.float64))
    golden.check("adopt_weight.at", torch.tensor(0.7 * ramp(10, 10, 0), dtype=torch.float64))


# --- penalties


def critic_of(golden: Golden) -> nn.Module:
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(6, 1, 3, 1, 1),
    )
    weights = {key: value for key, value in golden.tensors.items() if key.startswith("critic.")}
    critic.load_state_dict({key.removeprefix("critic."): value for key, value in weights.items()})
    return critic


@pytest.mark.parametrize(
    ("name", "factor", "center"), [("muse_wgan_gp", 10, 1.0), ("magvit2_gp0", 1, 0.0), ("magvit2_gp1", 1, 1.0)]
)
def test_gradient_penalties_and_their_second_order_gradients_are_the_peers(
    name: str, factor: float, center: float
) -> None:
    golden = load("gradient_penalty", "losses")
    critic, images = critic_of(golden), golden["in.x"].requires_grad_()
    logits = critic(images)
    golden.check("out.logits", logits.detach())
    penalty = factor * gradient_penalty(logits, images, center)
    golden.check(f"{name}.value", penalty.detach())
    (grad,) = torch.autograd.grad(penalty, critic.get_parameter("0.weight"))
    golden.check(f"{name}.grad_w0", grad)


def test_r1_is_bsqs_and_unlike_bsqs_reaches_the_discriminator() -> None:
    """bsq-vit takes the inner gradient without create_graph: its penalty has no gradient at all."""
    golden = load("gradient_penalty", "losses")
    critic, images = critic_of(golden), golden["in.x"].requires_grad_()
    penalty = r1_penalty(critic(images), images)
    golden.check("bsq_r1.value", penalty.detach())
    (grad,) = torch.autograd.grad(penalty, critic.get_parameter("0.weight"))
    golden.check("magvit2_gp0.grad_w0", grad)
    assert grad.abs().max() > 1


def test_lecam_can_be_that_of_open_magvit2() -> None:
    golden = load("gan_losses", "losses")
    lecam = LeCAM(decay=0.9, per_logit=True, update_first=True)
    for step in "123":
        penalty = lecam(golden[f"lecam.real{step}"], golden[f"lecam.fake{step}"])
        golden.check(f"lecam.reg{step}", penalty)
        golden.check(f"lecam.ema_real{step}", lecam.real_mean.double())
        golden.check(f"lecam.ema_fake{step}", lecam.fake_mean.double())


def test_lecam_is_titoks_by_default() -> None:
    golden = load("titok_lecam", "losses")
    config = golden.config
    network = MaskBitDiscriminator(config["disc"]["hidden_channels"], config["disc"]["num_stages"])
    renamed = {"block_in.": "stem.", "blocks.": "stages.", "to_logits.": "head."}
    weights = {}
    for key, value in golden.tensors.items():
        for theirs, ours in renamed.items():
            if key.startswith(f"w.{theirs}") and not key.endswith("kernel"):
                weights[key.replace(f"w.{theirs}", ours)] = value
    network.load_state_dict(weights)
    lecam = LeCAM(decay=config["lecam_ema_decay"])
    for step in "123":
        with torch.no_grad():
            real, fake = network(golden[f"in.real{step}"]), network(golden[f"in.fake{step}"])
        penalty = config["lecam_regularization_weight"] * lecam(real, fake)
        golden.check(f"out.lecam{step}", penalty)
        # its hinge has the 1/2 too
        golden.check(f"out.loss{step}", discriminator_loss("hinge", real, fake) + penalty)
        golden.check(f"out.ema_real{step}", lecam.real_mean.view(1))
        golden.check(f"out.ema_fake{step}", lecam.fake_mean.view(1))


# --- logit-Laplace


def test_logit_laplace_is_dalles() -> None:
    """Theirs takes pixels in [0, 1], ours images in [-1, 1] like all losses."""
    golden = load("logit_laplace", "losses")
    images, eps = golden["in.x"] * 2 - 1, golden.config["eps"]
    golden.check("out.mapped", map_pixels(images, eps))
    golden.check("dalle.map", map_pixels(images, eps))
    golden.check("dalle.unmap", (unmap_pixels(golden["in.mu"].sigmoid(), eps) + 1) / 2)
    locations, log_scales = golden["in.mu"].requires_grad_(), golden["in.lnb"].requires_grad_()
    loss = logit_laplace_loss(locations, log_scales, images, eps)
    loss.backward()
    golden.check("out.loss", loss.detach())
    assert locations.grad is not None
    assert log_scales.grad is not None
    golden.check("out.grad_mu", locations.grad)
    golden.check("out.grad_lnb", log_scales.grad)


# --- LPIPS


def test_the_distance_of_features_is_tamings_level_by_level() -> None:
    """taming adds 1e-10 outside the root; features here are far from the zero at which that matters."""
    golden = load("lpips_head", "losses")
    a, b, heads = ([golden[f"in.{part}{level}"] for level in range(5)] for part in ("feat0_", "feat1_", "lin"))
    golden.check("out.distance", feature_distance(a, b, heads).view(2, 1, 1, 1))
    for level in range(5):
        distance = feature_distance([a[level]], [b[level]], [heads[level]])
        golden.check(f"out.level{level}", distance.view(2, 1, 1, 1))


def test_the_scale_of_images_is_tamings() -> None:
    golden = load("lpips_head", "losses")
    scaling = ImageNetScaling()
    golden.check("scaling.out", scaling(golden["scaling.in"]))
    for name in ("shift", "scale"):
        assert torch.equal(torch.tensor(getattr(scaling, name)), golden[f"scaling.{name}"].flatten())


def rebuilt(name: str, shape: torch.Size, seed: int) -> Tensor:
    """The weight the golden file's recipe makes for a name of taming's."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    deviation = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return torch.from_numpy((random.standard_normal(shape) * deviation).astype(np.float32))


def test_lpips_over_the_whole_of_vgg16_is_tamings_and_torchmetrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = load("lpips_vgg16_recipe", "losses")
    seed, weights = golden.config["SEED"], {}
    for key, value in empty_features().state_dict().items():
        part = 1 + sum(int(key.split(".")[0]) > end for end in (3, 8, 15, 22))
        weights[f"features.{key}"] = rebuilt(f"net.slice{part}.{key}", value.shape, seed)
    golden.check("check.net.slice1.0.weight", weights["features.0.weight"].double().sum())
    golden.check("check.net.slice5.28.weight", weights["features.28.weight"].double().sum())
    golden.check("check.net.slice5.28.bias", weights["features.28.bias"].double().sum())
    torch.save(weights, tmp_path / "vgg16.pth")
    loss = PerceptualLoss(tmp_path / "vgg16.pth")
    published = [head.clone() for head in loss.heads]
    for level, head in enumerate(loss.heads):
        head.copy_(rebuilt(f"lin{level}.model.1.weight", head.shape, seed).abs())
    golden.check("check.lin4.model.1.weight", loss.heads[4].double().sum())

    expected = loss.feature_levels(golden["in.x0"])
    for name, level in zip(("1_2", "2_2", "3_3", "4_3", "5_3"), expected, strict=True):
        golden.check(f"feat.mean.relu{name}", level.mean(dim=(2, 3)))
    reconstructions = golden["in.x1"].requires_grad_()
    value = loss(reconstructions, golden["in.x0"])
    (grad,) = torch.autograd.grad(value, reconstructions)
    golden.check("out.grad_x1", grad * 2)  # theirs is of the sum over two images
    torch.testing.assert_close(value.detach(), golden["out.distance"].mean(), rtol=1e-4, atol=0)
    with torch.no_grad():
        levels = loss.feature_levels(reconstructions)
        distances = feature_distance(levels, expected, list(loss.heads)).view(2, 1, 1, 1)
        golden.check("out.distance", distances)
        golden.check("lpips_package.distance", distances)

        network = empty_features().to_empty(device="cpu")
        network.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
        monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *_: network)
        theirs = torchmetrics_lpips._NoTrainLpips(net="vgg")(reconstructions, golden["in.x0"]).flatten()
        torch.testing.assert_close(feature_distance(levels, expected, published), theirs, rtol=1e-5, atol=0)


# --- the step of VQ-GAN

STEPS: dict[str, AdversarialKind] = {"hinge": "hinge", "vanilla": "non_saturating"}


@dataclass(frozen=True)
class Step:
    """What taming's loss module has at hand: the images, a decoder of one layer, and the two networks that judge."""

    golden: Golden
    kind: AdversarialKind
    discriminator: PatchDiscriminator
    last_layer: Tensor
    reconstructions: Tensor
    eps: float = 1e-20  # theirs is 1e-10 outside the root; a net of few channels has features that short

    def levels(self, images: Tensor) -> list[Tensor]:
        """The stand-in for VGG16: five convolutions, the first alone without a stride."""
        activations, levels = ImageNetScaling()(images), []
        for level in range(5):
            weight, bias = self.golden[f"lpips.conv{level}.weight"], self.golden[f"lpips.conv{level}.bias"]
            activations = F.relu(F.conv2d(activations, weight, bias, stride=min(level + 1, 2), padding=1))
            levels.append(activations)
        return levels

    def perceptual_loss(self) -> Tensor:
        heads = [self.golden[f"lpips.lin{level}"] for level in range(5)]
        levels, expected = self.levels(self.reconstructions), self.levels(self.golden["in.x"])
        return feature_distance(levels, expected, heads, eps=self.eps).mean()

    def reconstruction_loss(self) -> Tensor:
        """taming's nll_loss and rec_loss: L1 and the perceptual loss."""
        l1 = L1Term(1)(self.reconstructions, self.golden["in.x"])
        return l1 + self.golden.config["perceptual_weight"] * self.perceptual_loss()

    def adversarial_loss(self) -> Tensor:
        """taming's generator half is the hinge's, whatever the discriminator's."""
        return generator_loss("hinge", self.discriminator(self.reconstructions))

    def adaptive_weight(self) -> Tensor:
        gradients = (
            torch.autograd.grad(loss(), self.last_layer, retain_graph=True)[0]
            for loss in (self.reconstruction_loss, self.adversarial_loss)
        )
        return self.golden.config["disc_weight"] * adaptive_weight(*gradients)


def step_of(name: str) -> Step:
    golden = load(f"vqgan_step_{name}", "losses")
    layers = golden.config["disc"]["n_layers"]
    discriminator = PatchDiscriminator(golden.config["disc"]["ndf"], layers, "batch")
    theirs = {key.removeprefix("disc.main."): value for key, value in golden.tensors.items() if "disc.main." in key}
    last = f"{3 * layers + 2}."
    discriminator.load_state_dict(
        {
            f"head.{key.removeprefix(last)}" if key.startswith(last) else f"trunk.{key}": value
            for key, value in theirs.items()
        }
    )
    last_layer = golden["in.last_w"].requires_grad_()
    reconstructions = F.conv2d(golden["in.h"], last_layer, golden["in.last_b"], padding=1)
    golden.check("out.recon", reconstructions.detach())
    return Step(golden, STEPS[name], discriminator, last_layer, reconstructions)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("number", [0, 10])
def test_the_generators_step_is_tamings(name: str, number: int) -> None:
    step = step_of(name)
    golden, config = step.golden, step.golden.config
    factor = ramp(number, config["disc_start"], 0)
    reconstruction, adversarial, weight = step.reconstruction_loss(), step.adversarial_loss(), step.adaptive_weight()
    codebook = config["codebook_weight"] * golden["in.codebook_loss"]
    loss = reconstruction + weight * factor * adversarial + codebook
    figures = {
        "loss": loss,
        "nll_loss": reconstruction,
        "rec_loss": reconstruction,
        "p_loss": step.perceptual_loss(),
        "d_weight": weight,
        "disc_factor": torch.tensor(factor),
        "g_loss": adversarial,
    }
    (figures["grad_last_w"],) = torch.autograd.grad(loss, step.last_layer, retain_graph=True)
    # theirs kept what the two backward passes of the adaptive weight left at the reconstructions
    (figures["grad_recon"],) = torch.autograd.grad(loss + reconstruction + adversarial, step.reconstructions)
    for figure, value in figures.items():
        golden.check(f"gen{number}.{figure}", value.detach())


@pytest.mark.parametrize("name", STEPS)
def test_the_adaptive_weight_is_tamings(name: str) -> None:
    step = step_of(name)
    for figure, loss in {"nll": step.reconstruction_loss, "g": step.adversarial_loss}.items():
        (gradient,) = torch.autograd.grad(loss(), step.last_layer, retain_graph=True)
        step.golden.check(f"adaptive.{figure}_grad", gradient)
    step.golden.check("adaptive.d_weight", step.adaptive_weight())


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("number", [0, 10])
def test_the_discriminators_step_is_tamings(name: str, number: int) -> None:
    step = step_of(name)
    real, fake = step.discriminator(step.golden["in.x"]), step.discriminator(step.reconstructions.detach())
    loss = ramp(number, step.golden.config["disc_start"], 0) * discriminator_loss(step.kind, real, fake)
    step.golden.check(f"disc{number}.loss", loss.detach())
    step.golden.check(f"disc{number}.logits_real", real.mean().detach())
    step.golden.check(f"disc{number}.logits_fake", fake.mean().detach())
    if number == 10:
        (gradient,) = torch.autograd.grad(loss, step.discriminator.get_parameter("trunk.0.weight"))
        step.golden.check("disc10.grad_main0", gradient)


@pytest.mark.parametrize("name", STEPS)
def test_eps_inside_the_root_hardly_moves_the_distance(name: str) -> None:
    """Ours is 1e-8 there, so that no feature has a gradient above 1e4; theirs has one of 1 over its length."""
    published = step_of(name)
    difference = replace(published, eps=1e-8).perceptual_loss() - published.golden["gen0.p_loss"]
    assert 5e-6 < difference.abs() < 5e-5
