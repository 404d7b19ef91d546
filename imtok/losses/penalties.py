"""Penalties that keep a discriminator smooth (R1, gradient penalty) or moderate where data is scarce (LeCAM).

Gradient penalties differentiate a gradient, which a discriminator compiled by `torch.compile` does not allow: they are
for logits of the plain network. Their gradient reaches the discriminator's weights. In published code that takes the
inner gradient without `create_graph` it does not: such a penalty is logged and does nothing.
"""

# Axes: B batch, H x W image.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.config.training import PenaltyPlace
from imtok.distributed import joint_mean
from imtok.joint_batch import JointBatch
from imtok.precision import keeping_float32
from imtok.recomputation import FirstPasses, is_recomputed, may_be_recomputed


def gradient_penalty(logits: Tensor, images: Tensor, center: float = 0.0) -> Tensor:
    """Compute the mean over the batch of (|dD/dx| - center)^2, with D the sum of an image's logits, a float32 scalar.

    `logits` are of `images` (B, 3, H, W), which required a gradient before the discriminator saw them; ValueError
    otherwise. A center of 0 is R1; 1 is the penalty of WGAN-GP (Gulrajani et al., 2017), there taken at points between
    images and fakes. In a network with BatchNorm, D of an image depends on its neighbours, and the penalty with it.
    """
    if not images.requires_grad:
        raise ValueError("images have no gradient; call images.requires_grad_() before the discriminator sees them")
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    gradient = gradient.flatten(1).float()
    if center == 0:
        return gradient.square().sum(dim=1).mean()
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=1)  # (B,)
    return (norms - center).square().mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Compute R1 (Mescheder et al., 2018, eq. 9), the batch's mean of |dD/dx|^2 at images; see `gradient_penalty`.

    Their factor of 1/2 is left to the weight, as tokenizers have it: a weight of 10 is their gamma of 20. Taken every
    n-th step alone (lazily), it weighs n times as much.
    """
    return gradient_penalty(logits, images)


def penalty_points(
    at: PenaltyPlace, images: Tensor, reconstructions: Tensor, joint: JointBatch | None = None
) -> list[Tensor]:
    """Return the batches, each (B, 3, H, W), at which a penalty takes slopes; those of `both` are two.

    `images` and `reconstructions` are R1's and R2's points (Mescheder et al., 2018). `interpolates` are those of
    WGAN-GP, between an image and its own reconstruction; torch's random state draws one share an image. Where `joint`
    has several ranks it draws them for the joint part, of which these images are the rank's rows.
    """
    if at == "interpolates":
        count, rows = (joint.part_size, joint.rows) if joint and joint.ranks > 1 else (len(images), range(len(images)))
        shares = torch.rand(count, device=images.device)[rows.start : rows.stop]
        return [interpolate(images, reconstructions, shares)]
    return {"images": [images], "reconstructions": [reconstructions], "both": [images, reconstructions]}[at]


def interpolate(images: Tensor, reconstructions: Tensor, shares: Tensor) -> Tensor:
    """Return share * image + (1 - share) * reconstruction of each: two (B, 3, H, W), shares (B,) -> (B, 3, H, W)."""
    return reconstructions.lerp(images, shares.view(-1, 1, 1, 1).to(images.dtype))


class LeCAM(nn.Module):
    """LeCAM (Tseng et al., 2021, "Regularizing GANs under Limited Data"): logits are held near moving averages.

    E[relu(D(x) - mean of fakes)^2] + E[relu(mean of reals - D(x'))^2], the means exponential moving averages that
    start at 0: it grows as reals and fakes part. By default it is MaskBit's and TiTok's: D is the batch's mean logit
    and the averages are those before this step. Open-MAGVIT2 takes each logit by itself (`per_logit`) and averages
    that know this step already (`update_first`). Forward on real and fake logits of any shape gives a float32 scalar,
    unweighted; the averages move in training mode alone, and never by logits that are not finite. They are buffers,
    so that a run resumes with them. In training the batch is the joint batch of all ranks, and every rank must call.
    """

    real_mean: Tensor  # () float32
    fake_mean: Tensor  # () float32

    def __init__(self, decay: float = 0.999, *, per_logit: bool = False, update_first: bool = False) -> None:
        super().__init__()
        self.decay = decay
        self.per_logit = per_logit
        self.update_first = update_first
        self._first_passes = FirstPasses[tuple[Tensor, Tensor]]()
        self.register_buffer("real_mean", torch.zeros((), dtype=torch.float32))
        self.register_buffer("fake_mean", torch.zeros((), dtype=torch.float32))

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the penalty; its gradient reaches both logits, not the averages."""
        real, fake = real_logits.float(), fake_logits.float()
        recomputed = self.training and is_recomputed()
        before = (self._first_passes.find(fake) if recomputed else None) or (self.real_mean, self.fake_mean)
        real_now, fake_now = self._mean(real), self._mean(fake)
        after = self._moved(before[0], real_now), self._moved(before[1], fake_now)
        real_mean, fake_mean = after if self.update_first else before
        penalty = self._excess(real, real_now, fake_mean) + self._excess(-fake, -fake_now, -real_mean)
        if recomputed:
            return penalty
        if self.training and may_be_recomputed():
            self._first_passes.keep(fake, (before[0].clone(), before[1].clone()))
        self.real_mean.copy_(after[0])
        self.fake_mean.copy_(after[1])
        return penalty

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Cast as `nn.Module` does, but keep the averages float32: in bfloat16 a step would not move them."""
        super()._apply(keeping_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self

    def of_fakes(self, fake_logits: Tensor) -> Tensor:
        """Return the part of the penalty that depends on the fakes; the averages stay as they are.

        Raises ValueError with `update_first`, where it depends on the reals as well.
        """
        if self.update_first:
            raise ValueError("with update_first the penalty on fakes depends on the reals; call forward on both")
        fake = fake_logits.float()
        return self._excess(-fake, -self._mean(fake), -self.real_mean)

    def _mean(self, logits: Tensor) -> Tensor:
        """Return the mean logit, in training that of the joint batch."""
        return joint_mean(logits.mean(), logits.numel()) if self.training else logits.mean()

    def _excess(self, logits: Tensor, mean: Tensor, average: Tensor) -> Tensor:
        """Return the mean square of what exceeds the average, of each logit or of their mean."""
        return F.relu((logits if self.per_logit else mean) - average).square().mean()

    def _moved(self, average: Tensor, mean: Tensor) -> Tensor:
        """Return the average after logits of this mean, without a branch, which would wait for the device."""
        if not self.training:
            return average
        mean = mean.detach()
        return torch.where(torch.isfinite(mean), average.lerp(mean, 1 - self.decay), average)
