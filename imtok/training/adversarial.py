"""The discriminator in training: its schedule, its own loss, and its part in the generator's loss."""

# Axes: B batch, S crop.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imtok.config.training import AdversarialConfig
from imtok.devices import Precision, autocast
from imtok.distributed import is_distributed, joint_mean, joint_rows
from imtok.errors import ConfigError
from imtok.joint_batch import JointBatch
from imtok.losses import (
    ADVERSARIAL_LOSSES,
    LeCAM,
    Pairs,
    adaptive_weight,
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    penalty_points,
    ramp,
)
from imtok.networks import Discriminator
from imtok.networks.discriminator_config import DiscriminatorConfig
from imtok.training.checkpoint import Stateful, collect, distribute
from imtok.training.optimizer import Optimizer
from imtok.training.schedule import learning_rate
from imtok.training.simultaneous import SharedForward, SharedLogits, mixes_images


def build_discriminator(config: DiscriminatorConfig, size: int) -> Discriminator:
    """Build the configured network; raises ConfigError where crops of `size` pixels are too small for it."""
    try:
        network = config.build(size)
    except ValueError as error:
        raise ConfigError(f"adversarial.discriminator: {error}") from error
    if size < network.min_size:
        least = f"{network.min_size} px is the least"
        raise ConfigError(
            f"adversarial.discriminator: crops of {size} px are too small, {least}; raise data.crop, or lower "
            "adversarial.discriminator.layers"
        )
    return network


def refuse_mixing(network: Discriminator, ranks: int) -> None:
    """Raise ConfigError on a discriminator in which the images of one rank alone would be mixed."""
    if mixes_images(network):
        raise ConfigError(
            f"adversarial.discriminator: norm batch takes its statistics over the images of one process, so {ranks} "
            "processes would not train what one does; set adversarial.discriminator.norm=group"
        )


@dataclass(frozen=True)
class GeneratorLoss:
    """The discriminator's part in the generator's loss."""

    gradient: Tensor  # (B, 3, S, S) of the weighted adversarial loss at the reconstructions
    metrics: dict[str, Tensor | float]
    shared: SharedLogits  # what the discriminator need not compute again


class Adversary:
    """A discriminator with its optimizer and schedule.

    It is trained alone from `start - warmup` on; the generator's loss is active from `start` on, with a weight that
    rises over `ramp`. So no reconstruction is ever pushed by a network that has learned nothing. From then on, too, it
    may take `critic_steps` steps for each of the tokenizer.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        size: int,
        device: torch.device,
        precision: Precision,
        joint: JointBatch | None = None,
    ) -> None:
        """`joint` says which rows of a part this rank has; without it all."""
        self.config, self.device, self.precision, self.joint = config, device, precision, joint
        self.discriminator = build_discriminator(config.discriminator, size).to(device).train()
        if joint and joint.ranks > 1:
            refuse_mixing(self.discriminator, joint.ranks)
        self.lecam = LeCAM(decay=config.lecam_decay).to(device)
        self.optimizer = Optimizer(self.discriminator.parameters(), config.learning_rate, config.betas, 0.0)
        self.steps = 0

    def learns(self, progress: float) -> bool:
        """Return whether the discriminator is trained at this share of the run."""
        return progress >= self.config.start - self.config.warmup

    def steps_alone(self, progress: float) -> bool:
        """Return whether the next step is the discriminator's alone; its own count of steps decides."""
        return self.weight(progress) > 0 and self.steps % self.config.critic_steps != 0

    def weight(self, progress: float) -> float:
        """Return the weight of the generator's loss at this share of the run."""
        return self.config.weight * ramp(progress, self.config.start, self.config.ramp)

    def generator_loss(
        self,
        images: Tensor,
        output: Tensor,
        reconstructions: Tensor,
        gradient: Tensor,
        last_layer: Tensor,
        progress: float,
        share: float,
    ) -> GeneratorLoss:
        """Differentiate the generator's loss at `reconstructions` of `images`, both (B, 3, S, S).

        `output` is a float32 leaf that equals them; `gradient` is that of the reconstruction loss at it. With an
        adaptive weight both gradients are carried on to `last_layer`, where their norms are compared (Esser et al.,
        2021, equation 7). In a simultaneous update the discriminator may learn from the reconstructions here already,
        in a batch that weighs `share`.
        """
        weight = self.weight(progress)
        loss, adversarial, shared = self._differentiate(images, output, share)
        metrics: dict[str, Tensor | float] = {"generator": loss}
        factor: Tensor | float = weight
        if self.config.adaptive:
            at_last_layer = [
                torch.autograd.grad(reconstructions, last_layer, each.to(reconstructions.dtype), retain_graph=True)[0]
                for each in (gradient, adversarial)
            ]
            if is_distributed():
                at_last_layer = list(joint_mean(torch.stack(at_last_layer), len(images)))
            ratio = adaptive_weight(at_last_layer[0], at_last_layer[1], self.config.adaptive_max)
            factor = weight * ratio
            metrics["adaptive"] = ratio
        metrics["weight"] = factor
        return GeneratorLoss(factor * adversarial, metrics, shared)

    def accumulate_gradients(
        self, images: Tensor, reconstructions: Tensor, share: float, shared: SharedLogits | None = None
    ) -> dict[str, Tensor]:
        """Add the discriminator's gradients of a batch that weighs `share`; return the metrics by name.

        `shared` is what the generator's loss of the same batch left. The metrics of several ranks are such that their
        means, weighed by rows, are those of the joint batch.
        """
        real, fake = (shared.real, shared.fake) if shared else (None, None)
        real = self._logits(images) if real is None else real
        fake = self._logits(reconstructions) if fake is None else fake
        loss = discriminator_loss(self.config.loss, real, fake, Pairs(images, reconstructions, self.config.gan_qp))
        metrics = {
            "discriminator": loss.detach(),
            "logits_real": real.detach().float().mean(),
            "logits_fake": fake.detach().float().mean(),
            "accuracy": discriminator_accuracy(real.detach(), self._compared(fake), self.config.loss),
        }
        if self.config.lecam > 0:
            penalty = self.lecam(real, fake)
            metrics["lecam"] = penalty.detach()
            loss = loss + self.config.lecam * penalty
        for name, weight, penalty in self._slope_penalties(images, reconstructions):
            metrics[name] = penalty.detach()
            loss = loss + weight * penalty
        torch.autograd.backward(share * loss, inputs=self.optimizer.parameters)
        return metrics

    def step(self, seen: float, images: int, finite: Tensor) -> None:
        """Take one optimisation step after `seen` of `images` training images, where `finite`, () bool, is true."""
        self.optimizer.step(learning_rate(seen, images, self.config.learning_rate, 0.0), finite)
        self.steps += 1

    def changed_by_forward(self) -> list[Tensor]:
        """Return what a forward pass changes: running statistics, moving averages, and vectors of power iterations.

        The flag of an ActNorm that has started is left out, as its start is not undone.
        """
        running = [*self.discriminator.buffers(), *self.lecam.buffers()]
        return [tensor for tensor in running if tensor.dtype != torch.bool]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts and the number of steps, by their names in a checkpoint."""
        return collect(self._parts()) | {"discriminator_steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; other names are ignored."""
        distribute(state_dict, self._parts())
        self.steps = state_dict["discriminator_steps"]

    def _parts(self) -> dict[str, Stateful]:
        return {
            "discriminator": self.discriminator,
            "lecam": self.lecam,
            "discriminator_optimizer": self.optimizer,
        }

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            logits: Tensor = self.discriminator(images)
            return logits

    def _differentiate(self, images: Tensor, output: Tensor, share: float) -> tuple[Tensor, Tensor, SharedLogits]:
        """Return the generator's loss, its gradient at `output`, and the logits that serve the discriminator too."""
        kind, logits, shared = self.config.loss, self._logits(output), SharedLogits()
        if self.config.update == "separate":
            loss = generator_loss(kind, logits)
            return loss.detach(), torch.autograd.grad(loss, output)[0], shared
        factor = ADVERSARIAL_LOSSES[kind].factor if self.config.lecam == 0 else None
        loss, gradient, shared.fake = SharedForward(self.discriminator, logits, output).differentiate(
            lambda fake: generator_loss(kind, fake),
            lambda fake: self._loss_at_fakes(images, output, fake, shared),
            share,
            factor,
        )
        return loss, gradient, shared

    def _compared(self, fake: Tensor) -> Tensor:
        """Return the logits with which those of images are compared: of all ranks where only their order counts."""
        if self.joint is None or ADVERSARIAL_LOSSES[self.config.loss].border is not None:
            return fake.detach()
        return joint_rows(fake, self.joint.sizes)

    def _loss_at_fakes(self, images: Tensor, output: Tensor, fake: Tensor, shared: SharedLogits) -> Tensor:
        """Compute a loss with the discriminator's gradient at the logits of reconstructions, ()."""
        real = fake.detach()  # any logits do, as the gradient does not depend on them
        if ADVERSARIAL_LOSSES[self.config.loss].paired:
            shared.real = self._logits(images)
            real = shared.real.detach()
        loss = discriminator_loss(self.config.loss, real, fake, Pairs(images, output, self.config.gan_qp))
        return loss + self.config.lecam * self.lecam.of_fakes(fake) if self.config.lecam > 0 else loss

    def _slope_penalties(self, images: Tensor, reconstructions: Tensor) -> Iterator[tuple[str, float, Tensor]]:
        """Yield name, weight and value of each penalty on slopes that this step has."""
        config, penalty = self.config, self.config.penalty
        if config.r1 > 0 and self.steps % config.r1_every == 0:
            yield "r1", config.r1 * config.r1_every, self._slope_penalty(images, 0.0)
        if penalty.weight > 0 and self.steps % penalty.every == 0:
            points = penalty_points(penalty.at, images, reconstructions, self.joint)
            values = [self._slope_penalty(each, penalty.center) for each in points]
            yield "penalty", penalty.weight * penalty.every, torch.stack(values).sum()

    def _slope_penalty(self, points: Tensor, center: float) -> Tensor:
        """Penalise the slope of an image's mean logit, so that published weights suit a map of logits of any size.

        The gradient of the sum of logits would be longer by their number: 36 logits a crop make 1296 times the
        penalty. It is computed in float32, as second derivatives of bfloat16 are mostly rounding.
        """
        leaf = points.detach().clone().requires_grad_()
        with autocast(self.device, "fp32"):
            logits = self.discriminator.forward(leaf)  # not compiled: such a graph has no second derivative
            return gradient_penalty(logits.flatten(1).mean(dim=1), leaf, center)
