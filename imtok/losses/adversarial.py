"""Adversarial losses on a discriminator's logits, the balance they reach, and how much they weigh.

Three pairs of losses (`AdversarialKind`). `hinge` is that of VQ-GAN (Lim & Ye, 2017, "Geometric GAN"; Esser et al.,
2021); `non_saturating` is the original GAN's with the generator's better gradient (Goodfellow et al., 2014), whose
discriminator half VQ-GAN's code calls vanilla; `least_squares` has targets 1 and 0 (Mao et al., 2017). Discriminator
losses are all half the sum of what reals and fakes cost, so that one learning rate serves them; published code that
leaves out the half has losses of twice the size.

Logits are of any shape, one an image or one a patch, and losses are means over all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialKind = Literal["hinge", "non_saturating", "least_squares"]


def discriminator_loss(kind: AdversarialKind, real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's loss from logits of images and of reconstructions: a float32 scalar.

    hinge           1/2 E[relu(1 - D(x)) + relu(1 + D(x'))]
    non_saturating  1/2 E[softplus(-D(x)) + softplus(D(x'))]
    least_squares   1/2 E[(D(x) - 1)^2 + D(x')^2]

    `fake` should come from detached reconstructions, or the generator learns to be found out.
    """
    real, fake = real.float(), fake.float()
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    if kind == "non_saturating":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def generator_loss(kind: AdversarialKind, fake: Tensor) -> Tensor:
    """Compute the generator's loss from logits of its reconstructions: a float32 scalar.

    hinge           -E[D(x')]
    non_saturating  E[softplus(-D(x'))]
    least_squares   1/2 E[(D(x') - 1)^2]

    VQ-GAN's code has -E[D(x')] beside its vanilla discriminator too; that is `generator_loss("hinge", fake)`.
    """
    fake = fake.float()
    if kind == "hinge":
        return -fake.mean()
    if kind == "non_saturating":
        return F.softplus(-fake).mean()
    return (fake - 1).square().mean() / 2


def discriminator_accuracy(real: Tensor, fake: Tensor, kind: AdversarialKind = "hinge") -> Tensor:
    """Compute the share of logits on their own side, reals above and fakes below, each counting half: in [0, 1].

    The border is 0, for `least_squares` 1/2. At 0.5 the discriminator knows nothing, at 1 the generator has lost.
    """
    border = 0.5 if kind == "least_squares" else 0.0
    return ((real.detach() > border).float().mean() + (fake.detach() < border).float().mean()) / 2


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor, largest: float = 1e4) -> Tensor:
    """Compute |reconstruction gradient| / (|adversarial gradient| + 1e-4) in [0, largest], detached, a float32 scalar.

    Both are gradients at the weight of the last decoder layer (Esser et al., 2021, eq. 7). Where one of them is not
    finite the weight is NaN: a clamped ratio would hide that from checks of losses and gradients.
    """
    reconstruction = torch.linalg.vector_norm(reconstruction_gradient.detach().float())
    adversarial = torch.linalg.vector_norm(adversarial_gradient.detach().float())
    weight = (reconstruction / (adversarial + 1e-4)).clamp(0, largest)
    return torch.where(torch.isfinite(reconstruction + adversarial), weight, torch.nan)


def ramp(progress: float, start: float, length: float) -> float:
    """Return 0 up to `start`, then a line to 1 over `length`, then 1; with a length of 0 it is 1 from `start` on."""
    if progress < start:
        return 0.0
    return min(1.0, (progress - start) / length) if length > 0 else 1.0
