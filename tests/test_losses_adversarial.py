"""The losses of critics without a border and of the original game, by values and gradients worked out by hand."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from families import noise
from torch import Tensor

from imtok.config.training import GANQPConfig, PenaltyPlace
from imtok.losses import (
    Pairs,
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    interpolate,
    penalty_points,
)


def flat_images(*values: float) -> Tensor:
    """Images (B, 3, 1, 2) of one value each."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 1, 2).clone()


def pairs(pairing: Literal["own", "independent"] = "own", distance: Literal["l1", "l2"] = "l1") -> Pairs:
    """Three images that lie .1, .2 and .0 from their own reconstructions."""
    images = flat_images(0.0, 0.5, 1.0)
    return Pairs(images, flat_images(0.1, 0.3, 1.0), GANQPConfig(pairing=pairing, distance=distance))


def test_the_original_game_has_a_sum_of_zero_at_reconstructions() -> None:
    real, fake = torch.tensor([2.0, 0.0]).requires_grad_(), torch.tensor([0.0, -2.0]).requires_grad_()
    loss, against = discriminator_loss("saturating", real, fake), generator_loss("saturating", fake)
    assert against.item() == pytest.approx(-(math.log(2) + math.log1p(math.exp(-2))) / 4)
    (for_fake,) = torch.autograd.grad(loss, fake)
    (for_generator,) = torch.autograd.grad(against, fake)
    assert for_generator.tolist() == pytest.approx((-for_fake).tolist())
    assert for_generator.tolist() == pytest.approx([-0.125, -0.25 / (1 + math.exp(2))])  # vanishes where D is sure


def test_wasserstein_is_the_difference_of_means_without_a_half() -> None:
    real, fake = torch.tensor([3.0, 1.0]).requires_grad_(), torch.tensor([-1.0, 0.0, 4.0]).requires_grad_()
    loss = discriminator_loss("wasserstein", real, fake)
    assert loss.item() == 1 - 2
    for_real, for_fake = torch.autograd.grad(loss, (real, fake))
    assert for_real.tolist() == [-0.5, -0.5]
    assert for_fake.tolist() == pytest.approx([1 / 3] * 3)
    assert generator_loss("wasserstein", fake).item() == -1


def test_gan_qp_of_own_pairs_by_hand() -> None:
    real = torch.tensor([1.0, 3.0, 0.5]).requires_grad_()
    fake = torch.tensor([0.0, 1.0, 0.5]).requires_grad_()  # differences 1, 2 and 0
    loss = discriminator_loss("gan_qp", real, fake, pairs())
    assert loss.item() == pytest.approx(((1 / 2 - 1) + (4 / 4 - 2) + 0) / 3)  # t^2 / (2 l d) - t, l d = 1, 2, .01
    for_real, for_fake = torch.autograd.grad(loss, (real, fake))
    assert for_real.tolist() == pytest.approx([0.0, 0.0, -1 / 3], abs=1e-6)  # (t / (l d) - 1) / B: both are at rest
    assert for_fake.tolist() == pytest.approx([0.0, 0.0, 1 / 3], abs=1e-6)
    assert generator_loss("gan_qp", fake).item() == -0.5


def test_gan_qp_of_independent_pairs_takes_the_neighbours() -> None:
    real = torch.tensor([1.0, 3.0, 0.5]).requires_grad_()
    fake = torch.tensor([0.0, 1.0, 0.5]).requires_grad_()  # t of (0, 2), (1, 0) and (2, 1): .5, 3, -.5
    loss = discriminator_loss("gan_qp", real, fake, pairs("independent"))
    scales = [10.0, 4.0, 7.0]  # 10 |0 - 1|, 10 |.5 - .1|, 10 |1 - .3|
    values = [t**2 / (2 * scale) - t for t, scale in zip((0.5, 3.0, -0.5), scales, strict=True)]
    assert loss.item() == pytest.approx(sum(values) / 3)
    slopes = [(t / scale - 1) / 3 for t, scale in zip((0.5, 3.0, -0.5), scales, strict=True)]
    for_real, for_fake = torch.autograd.grad(loss, (real, fake))
    assert for_real.tolist() == pytest.approx(slopes)
    assert for_fake.tolist() == pytest.approx([-slopes[1], -slopes[2], -slopes[0]])


@pytest.mark.parametrize(("distance", "expected"), [("l1", 0.25), ("l2", math.sqrt(0.125))])
def test_distances_of_pairs_are_means_detached_and_never_zero(distance: Literal["l1", "l2"], expected: float) -> None:
    images = torch.zeros(2, 3, 1, 2)
    reconstructions = torch.tensor([0.0, 0.5]).expand(3, 1, 2).unsqueeze(0).repeat(2, 1, 1, 1)
    reconstructions[1] = 0
    found = Pairs(images, reconstructions.requires_grad_(), GANQPConfig(distance=distance, scale=4)).scales()
    assert found.tolist() == pytest.approx([4 * expected, 4e-3])
    assert not found.requires_grad


def test_the_free_critic_of_gan_qp_differs_by_the_distance() -> None:
    """Its difference is l d and its loss -l d / 2: with own pairs a reconstruction loss is left to the generator."""
    gaps = torch.tensor([1.0, 2.0, 0.01])  # l d
    differences = gaps.clone().requires_grad_()
    loss = discriminator_loss("gan_qp", differences, torch.zeros(3), pairs())
    (slope,) = torch.autograd.grad(loss, differences)
    assert slope.abs().max() < 1e-6
    assert loss.item() == pytest.approx(-gaps.mean().item() / 2)


def test_gan_qp_takes_the_mean_of_an_images_logits() -> None:
    real, fake = noise(3, 1, 2, 2, seed=1), noise(3, 1, 2, 2, seed=2)
    means = [logits.mean(dim=(1, 2, 3)) for logits in (real, fake)]
    whole = discriminator_loss("gan_qp", real, fake, pairs("independent", "l2"))
    torch.testing.assert_close(whole, discriminator_loss("gan_qp", *means, pairs("independent", "l2")))


def test_gan_qp_refuses_logits_without_pairs_and_an_image_alone() -> None:
    with pytest.raises(ValueError, match="give discriminator_loss its pairs"):
        discriminator_loss("gan_qp", torch.zeros(2), torch.zeros(2))
    alone = Pairs(flat_images(0.0), flat_images(1.0), GANQPConfig(pairing="independent"))
    with pytest.raises(ValueError, match="one image has no other reconstruction"):
        discriminator_loss("gan_qp", torch.zeros(1), torch.zeros(1), alone)


@pytest.mark.parametrize("kind", ["wasserstein", "gan_qp"])
def test_accuracy_without_a_border_is_the_probability_of_the_order(kind: Literal["wasserstein", "gan_qp"]) -> None:
    real, fake = torch.tensor([5.0, 2.0, -3.0, 2.0]), torch.tensor([2.0, -4.0, 3.0])
    pairs = [(x > y) + (x == y) / 2 for x in real.tolist() for y in fake.tolist()]
    assert discriminator_accuracy(real, fake, kind).item() == pytest.approx(sum(pairs) / 12)
    assert discriminator_accuracy(real + 100, fake + 100, kind).item() == pytest.approx(sum(pairs) / 12)
    assert discriminator_accuracy(real.view(1, 1, 2, 2), real, kind).item() == 0.5
    assert discriminator_accuracy(real + 10, fake, kind).item() == 1


def test_interpolates_lie_between_an_image_and_its_own_reconstruction() -> None:
    images, reconstructions = flat_images(0.0, 0.0, 1.0), flat_images(1.0, 2.0, -1.0)
    between = interpolate(images, reconstructions, torch.tensor([1.0, 0.5, 0.25]))
    assert between[:, 0, 0, 0].tolist() == [0.0, 1.0, -0.5]
    torch.manual_seed(0)
    (drawn,) = penalty_points("interpolates", images, reconstructions)
    shares = (drawn[:, 0, 0, 0] - reconstructions[:, 0, 0, 0]) / (images - reconstructions)[:, 0, 0, 0]
    assert shares.unique().numel() == 3  # one share an image
    assert ((shares >= 0) & (shares < 1)).all()
    torch.manual_seed(0)
    assert torch.equal(penalty_points("interpolates", images, reconstructions)[0], drawn)


@pytest.mark.parametrize(("at", "expected"), [("images", ["x"]), ("reconstructions", ["y"]), ("both", ["x", "y"])])
def test_penalties_are_taken_where_the_place_says(at: PenaltyPlace, expected: list[str]) -> None:
    batches = {"x": flat_images(0.0), "y": flat_images(1.0)}
    before = torch.get_rng_state()
    found = penalty_points(at, batches["x"], batches["y"])
    assert len(found) == len(expected)
    assert all(each is batches[name] for each, name in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)  # other places draw nothing


def test_slopes_at_the_center_cost_nothing() -> None:
    weight = torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1).requires_grad_()
    points = interpolate(flat_images(0.0)[..., :1], flat_images(1.0)[..., :1], torch.tensor([0.3])).requires_grad_()
    penalty = gradient_penalty((points * weight).sum(dim=(1, 2, 3)), points, center=1)
    assert penalty.item() == pytest.approx(0, abs=1e-12)
