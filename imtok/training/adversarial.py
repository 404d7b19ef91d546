"""The discriminator at work: when it learns, what it learns from, and what it tells the generator."""

# Axes: B batch, S crop.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imtok.config import AdversarialConfig, DiscriminatorConfig
from imtok.devices import Precision, autocast
from imtok.errors import ConfigError
from imtok.losses import (
    LeCAM,
    adaptive_weight,
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    ramp,
)
from imtok.networks import MaskBitDiscriminator, PatchDiscriminator, StyleGANDiscriminator
from imtok.training.schedule import learning_rate

_POOL = 16  # logits a side after MaskBit's pooling


def build_discriminator(config: DiscriminatorConfig, size: int) -> nn.Module:
    """The network a configuration stands for; ConfigError where crops of `size` pixels are too small for it."""
    try:
        network = _built(config, size)
    except ValueError as error:
        raise ConfigError(f"adversarial.discriminator: {error}") from error
    if size < network.min_size:
        least = f"{network.min_size} px is the least"
        raise ConfigError(
            f"adversarial.discriminator: crops of {size} px are too small, {least}; raise data.crop, or lower "
            "adversarial.discriminator.layers"
        )
    return network


def _built(config: DiscriminatorConfig, size: int) -> StyleGANDiscriminator | MaskBitDiscriminator | PatchDiscriminator:
    if config.kind == "stylegan":
        return StyleGANDiscriminator(size, channels=config.channels)
    if config.kind == "maskbit":
        # Crops too small for its pooling do without, as in Open-MAGVIT2.
        pool = _POOL if size >= _POOL << config.layers else None
        return MaskBitDiscriminator(channels=config.channels, layers=config.layers, pool=pool)
    return PatchDiscriminator(channels=config.channels, layers=config.layers, norm=config.norm)


@dataclass(frozen=True)
class Judgement:
    """What the generator hears about its reconstructions."""

    gradient: Tensor  # (B, 3, S, S) of the weighted adversarial loss at the reconstructions
    figures: dict[str, Tensor | float]


class Adversary:
    """A discriminator with its optimizer and schedule.

    It is first trained alone, from `start - warmup` on, before the generator feels it at `start`, with a weight that
    rises over `ramp`; so no reconstruction is ever pushed by a network that has learned nothing.
    """

    def __init__(self, config: AdversarialConfig, size: int, device: torch.device, precision: Precision) -> None:
        self.config, self.device, self.precision = config, device, precision
        self.discriminator = build_discriminator(config.discriminator, size).to(device).train()
        self.lecam = LeCAM(decay=config.lecam_decay).to(device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0, fused=True
        )
        self.steps = 0

    def learns(self, progress: float) -> bool:
        """The discriminator is trained at this share of the run."""
        return progress >= self.config.start - self.config.warmup

    def weight(self, progress: float) -> float:
        """Weight of the generator's loss at this share of the run."""
        return self.config.weight * ramp(progress, self.config.start, self.config.ramp)

    def judge(
        self, output: Tensor, reconstructions: Tensor, gradient: Tensor, last_layer: Tensor, progress: float
    ) -> Judgement:
        """What `reconstructions` (B, 3, S, S) must change to be taken for images.

        `output` is a float32 leaf that equals them; `gradient` is that of the reconstruction loss at it. With an
        adaptive weight both gradients are carried on to `last_layer`, where their norms are compared (Esser et al.,
        2021, equation 7).
        """
        weight = self.weight(progress)
        with autocast(self.device, self.precision):
            logits = self.discriminator(output)
        loss = generator_loss(self.config.loss, logits)
        (pull,) = torch.autograd.grad(loss, output)
        figures: dict[str, Tensor | float] = {"generator": loss.detach()}
        factor: Tensor | float = weight
        if self.config.adaptive:
            there = [
                torch.autograd.grad(reconstructions, last_layer, each.to(reconstructions.dtype), retain_graph=True)[0]
                for each in (gradient, pull)
            ]
            ratio = adaptive_weight(there[0], there[1], self.config.adaptive_max)
            factor = weight * ratio
            figures["adaptive"] = ratio
        figures["weight"] = factor
        return Judgement(factor * pull, figures)

    def learn(self, images: Tensor, reconstructions: Tensor, share: float) -> dict[str, Tensor]:
        """Add to the discriminator's gradient what a batch, weighing `share`, teaches; figures by name."""
        with autocast(self.device, self.precision):
            real, fake = self.discriminator(images), self.discriminator(reconstructions)
        loss = discriminator_loss(self.config.loss, real, fake)
        figures = {
            "discriminator": loss.detach(),
            "logits_real": real.detach().float().mean(),
            "logits_fake": fake.detach().float().mean(),
            "accuracy": discriminator_accuracy(real.detach(), fake.detach(), self.config.loss),
        }
        if self.config.lecam > 0:
            penalty = self.lecam(real, fake)
            figures["lecam"] = penalty.detach()
            loss = loss + self.config.lecam * penalty
        if self.config.r1 > 0 and self.steps % self.config.r1_every == 0:
            penalty = self._r1(images)
            figures["r1"] = penalty.detach()
            loss = loss + self.config.r1 * self.config.r1_every * penalty
        torch.autograd.backward(share * loss)
        return figures

    def gradient_norm(self, clip_norm: float) -> Tensor:
        """Scale the gradient down to `clip_norm` where it is longer; its norm before, ()."""
        return nn.utils.clip_grad_norm_(self.discriminator.parameters(), clip_norm)

    def step(self, seen: float, images: int, unsound: Tensor) -> None:
        """One optimisation step after `seen` of `images` training images, none where `unsound` is 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(seen, images, self.config.learning_rate, 0.0)
        self.optimizer.found_inf = unsound  # type: ignore[attr-defined]  # the fused kernel reads it
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    def _r1(self, images: Tensor) -> Tensor:
        """R1 of an image's mean logit, so that the published weights suit a map of logits of any size.

        The gradient of their sum would be longer by their number: 36 logits a crop make 1296 times the penalty. In
        float32, as second derivatives of bfloat16 are mostly rounding.
        """
        leaf = images.detach().clone().requires_grad_()
        with autocast(self.device, "fp32"):
            logits = self.discriminator.forward(leaf)  # not compiled: such a graph has no second derivative
            return r1_penalty(logits.flatten(1).mean(dim=1), leaf)
