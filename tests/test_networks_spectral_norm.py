"""Spectral normalisation of discriminators: what it bounds, what a checkpoint holds of it, and under bf16."""

from __future__ import annotations

import pytest
import torch
from families import noise
from torch import nn

from imtok.devices import autocast
from imtok.networks import Discriminator
from imtok.networks.discriminator_config import DiscriminatorConfig

CONFIGS = {
    "patchgan": DiscriminatorConfig(channels=4, layers=2, norm="none", spectral_norm=True),
    "stylegan": DiscriminatorConfig(kind="stylegan", channels=8, spectral_norm=True),
    "maskbit": DiscriminatorConfig(kind="maskbit", channels=8, layers=2, spectral_norm=True),
}


def build(kind: str) -> Discriminator:
    torch.manual_seed(0)
    return CONFIGS[kind].build(32).train()


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_weight_has_a_largest_singular_value_of_one(kind: str) -> None:
    network = build(kind)
    with torch.no_grad():
        for _ in range(30):  # power iterations
            network(noise(1, 3, 32, 32))
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_power_iteration_is_part_of_the_state(kind: str) -> None:
    network, other = build(kind), build(kind)
    images = noise(2, 3, 32, 32)
    network(images)
    other.load_state_dict(network.state_dict())
    assert any(name.endswith("_u") for name in network.state_dict())
    assert torch.equal(network(images), other(images))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), other.buffers(), strict=True))


def test_the_slope_of_a_plain_patchgan_is_bounded() -> None:
    """Its five layers of kernels 4 x 4 have slopes of at most 4 each, so far below that for what is not adversarial."""
    network = build("patchgan")
    images = (noise(4, 3, 32, 32) / 3).requires_grad_()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(100)  # of no consequence to weights, only to biases
            network(images)
    (slope,) = torch.autograd.grad(network(images).mean(dim=(1, 2, 3)).sum(), images)
    assert 0 < slope.flatten(1).norm(dim=1).max() < 1


def test_bf16_normalises_within_its_precision() -> None:
    network, images = build("patchgan").eval(), noise(2, 3, 32, 32)
    with autocast(torch.device("cpu"), "bf16"):
        logits = network(images)
    torch.testing.assert_close(logits.float(), network(images), rtol=0.05, atol=0.02)
