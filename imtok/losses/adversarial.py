"""Adversarial losses on a discriminator's logits, the balance they reach, and how much they weigh.

Each pair of losses is a class with its two formulas and the border between its logits (`AdversarialKind`).

- `hinge` is that of VQ-GAN (Lim & Ye, 2017, "Geometric GAN"; Esser et al., 2021).
- `non_saturating` is the original GAN's with the generator's better gradient, `saturating` the original game itself
  (Goodfellow et al., 2014). VQ-GAN's code calls their discriminator half vanilla.
- `least_squares` has targets 1 and 0 (Mao et al., 2017).
- `wasserstein` has a critic (Arjovsky et al., 2017), which measures a distance as long as something bounds its slope: a
  penalty (WGAN-GP, Gulrajani et al., 2017) or spectral normalisation.
- `gan_qp` bounds the critic's difference over each pair of an image and a reconstruction by a quadratic potential in
  their distance (Su, 2018, "GAN-QP", arXiv:1811.07296). It needs no bound on the slope.

Discriminator losses with a border are half the sum of what reals and fakes cost, so that one learning rate serves them;
published code that leaves out the half has losses of twice the size. `wasserstein` and `gan_qp` are the whole
difference, as published: the weight of 10 of WGAN-GP and the scale of 10 of GAN-QP belong to that.

Logits are of any shape, one an image or one a patch, and losses are means over all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.config.training import AdversarialKind
from imtok.losses.pairs import Pairs


@dataclass(frozen=True)
class Logits:
    """All that a discriminator's loss is of: float32 logits of images and reconstructions, and who is paired."""

    real: Tensor
    fake: Tensor
    pairs: Pairs | None


class AdversarialLoss(ABC):
    """The two losses of a game, on float32 logits."""

    border: ClassVar[float | None] = 0.0  # reals lie above it, fakes below; None: only their order counts
    # At every logit of a reconstruction the generator's gradient is so many times the discriminator's; None: it varies.
    factor: ClassVar[float | None] = None
    paired: ClassVar[bool] = False  # the discriminator's gradient at reconstructions depends on the logits of images

    @abstractmethod
    def discriminator(self, logits: Logits) -> Tensor:
        """Return the discriminator's loss, ()."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Return the generator's loss, ()."""


class Hinge(AdversarialLoss):
    """Margins of 1 on both sides, against the mean logit."""

    def discriminator(self, logits: Logits) -> Tensor:
        """Return 1/2 E[relu(1 - D(x)) + relu(1 + D(x'))]."""
        return (F.relu(1 - logits.real).mean() + F.relu(1 + logits.fake).mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        """Return -E[D(x')], which VQ-GAN's code has beside its vanilla discriminator too."""
        return -fake.mean()


class NonSaturating(AdversarialLoss):
    """Binary cross-entropy, against that of reconstructions taken for images."""

    def discriminator(self, logits: Logits) -> Tensor:
        """Return 1/2 E[softplus(-D(x)) + softplus(D(x'))]."""
        return (F.softplus(-logits.real).mean() + F.softplus(logits.fake).mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        """Return E[softplus(-D(x'))]."""
        return F.softplus(-fake).mean()


class Saturating(NonSaturating):
    """The same discriminator, against minus its own loss at reconstructions: a game whose sum is zero."""

    factor = -1.0

    def generator(self, fake: Tensor) -> Tensor:
        """Return -1/2 E[softplus(D(x'))]; its gradient vanishes where the discriminator is sure."""
        return -F.softplus(fake).mean() / 2


class LeastSquares(AdversarialLoss):
    """Squared distances from targets 1 and 0, against those of reconstructions from 1."""

    border = 0.5

    def discriminator(self, logits: Logits) -> Tensor:
        """Return 1/2 E[(D(x) - 1)^2 + D(x')^2]."""
        return ((logits.real - 1).square().mean() + logits.fake.square().mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        """Return 1/2 E[(D(x') - 1)^2]."""
        return (fake - 1).square().mean() / 2


class Wasserstein(AdversarialLoss):
    """The difference of mean logits, with a critic whose slope something else bounds."""

    border = None
    factor = -1.0

    def discriminator(self, logits: Logits) -> Tensor:
        """Return E[D(x')] - E[D(x)], minus the estimate of the distance."""
        return logits.fake.mean() - logits.real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return -E[D(x')]."""
        return -fake.mean()


class GANQP(AdversarialLoss):
    """The difference of logits over each pair, less a quadratic potential in the pair's distance.

    With t = T(x) - T(x'), T the mean logit of an image, a free critic has t = l d for each pair. With `own` pairs the
    generator then minimises l E[d(x, x')], which is a reconstruction loss; with independent pairs it compares
    distributions, as in the paper.
    """

    border = None
    paired = True

    def discriminator(self, logits: Logits) -> Tensor:
        """Return -E[t - t^2 / (2 l d)], of which a free critic reaches -l E[d] / 2."""
        if logits.pairs is None:
            raise ValueError("gan_qp compares pairs of images and reconstructions; give discriminator_loss its pairs")
        differences = logits.pairs.differences(logits.real, logits.fake)
        return logits.pairs.mean(differences.square() / (2 * logits.pairs.scales()) - differences)

    def generator(self, fake: Tensor) -> Tensor:
        """Return -E[T(x')]; E[T(x)] has no gradient here and is left out, as it would cost a forward pass."""
        return -fake.mean()


ADVERSARIAL_LOSSES: dict[AdversarialKind, AdversarialLoss] = {
    "hinge": Hinge(),
    "non_saturating": NonSaturating(),
    "saturating": Saturating(),
    "least_squares": LeastSquares(),
    "wasserstein": Wasserstein(),
    "gan_qp": GANQP(),
}


def discriminator_loss(kind: AdversarialKind, real: Tensor, fake: Tensor, pairs: Pairs | None = None) -> Tensor:
    """Compute the discriminator's loss from logits of images and of reconstructions: a float32 scalar.

    `fake` should come from detached reconstructions, or the generator learns to be found out. The formula is that of
    the class of `kind`. `gan_qp` needs `pairs`; ValueError without them.
    """
    return ADVERSARIAL_LOSSES[kind].discriminator(Logits(real.float(), fake.float(), pairs))


def generator_loss(kind: AdversarialKind, fake: Tensor) -> Tensor:
    """Compute the generator's loss from logits of its reconstructions: a float32 scalar.

    The formula is that of the class of `kind`.
    """
    return ADVERSARIAL_LOSSES[kind].generator(fake.float())


def discriminator_accuracy(real: Tensor, fake: Tensor, kind: AdversarialKind = "hinge") -> Tensor:
    """Compute how often the discriminator is right, in [0, 1]; at 0.5 it knows nothing, at 1 the generator has lost.

    It is the share of logits on their own side, reals above and fakes below, each counting half. The border is 0, for
    `least_squares` 1/2. Critics without a border (`wasserstein`, `gan_qp`) have P(D(x) > D(x')) over all pairs of a
    logit of an image and one of a reconstruction, where equal logits count half.
    """
    border = ADVERSARIAL_LOSSES[kind].border
    if border is None:
        return _order_probability(real.detach().float().flatten(), fake.detach().float().flatten())
    return ((real.detach() > border).float().mean() + (fake.detach() < border).float().mean()) / 2


def _order_probability(real: Tensor, fake: Tensor) -> Tensor:
    """Compute P(real > fake) + P(real = fake) / 2 over all pairs by sorting: (N,), (M,) -> () float32."""
    ordered = fake.sort().values
    below = torch.searchsorted(ordered, real)
    not_above = torch.searchsorted(ordered, real, right=True)
    return ((below + not_above).double().mean() / (2 * len(fake))).float()


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
