"""The simultaneous update: one forward of the discriminator on the reconstructions serves both players.

In a step both players learn from the same reconstructions x' under the same weights, so that both can have the same
logits D(x'). Let g be the gradient of a player's loss at these logits, and J the Jacobian of the logits at x'. The
generator needs J^T g_G at x', the discriminator needs what g_D gives at its weights. Two ways take both from one
forward, and both are exact:

    two backwards   g_G goes back to x', then g_D to the weights, through the same graph. It serves every loss.
    one backward    g_D goes back to the weights and on to x'. Where g_G = c g_D at all logits of an image, what
                    arrives at x' is J^T g_D, and c times that is the generator's gradient.

`proportion` finds c at the logits themselves, which costs nothing beside a network. So c holds for any pair of losses,
and for what a penalty on the logits (LeCAM) adds to g_D. By hand, without LeCAM, for the losses of
`imtok.losses.adversarial`:

    wasserstein, saturating  -1, for any logits
    hinge                    -2, where all logits of the image are above -1; below them g_D is 0
    non_saturating           -2 e^(-D), with one logit an image
    least_squares            (D - 1) / D, with one logit an image that is not 0
    gan_qp                   -1 / (1 - t / (l d)), where the difference t of the pair is not l d

The two first are known beforehand (`AdversarialLoss.factor`), the others are looked for in each batch, and two
backwards are taken where an image has none. A discriminator that mixes the images of a batch (BatchNorm) needs one c
for the whole batch. A compiled one cannot go back twice through a graph: there the discriminator runs again.
"""

# Axes: B batch, M logits an image, S crop.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imtok.distributed import any_rank

LossOfLogits = Callable[[Tensor], Tensor]

_ROUNDING = 1e-6  # of the largest gradient of an image: a few units in the last place of float32
_LARGEST = 1e6  # beyond this |c|, g_D is so small that products in the network may underflow


@dataclass
class SharedLogits:
    """Logits that the generator's part of a step leaves to the discriminator's; None where it has to compute them.

    Those of reconstructions have no graph where the discriminator has learned from them already.
    """

    real: Tensor | None = None
    fake: Tensor | None = None


class SharedForward:
    """One forward of a discriminator on reconstructions, from which both players are differentiated."""

    def __init__(self, network: nn.Module, logits: Tensor, output: Tensor) -> None:
        """`logits` are what the discriminator `network` gives for `output`, a leaf (B, 3, S, S)."""
        self.network, self.logits, self.output = network, logits, output

    def differentiate(
        self, generator: LossOfLogits, discriminator: LossOfLogits, share: float, factor: float | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the generator's loss, its gradient at `output`, and the logits from which the discriminator learns.

        Both losses are functions of float32 logits of reconstructions. With one backward the gradient of `share` times
        `discriminator` is added to the weights, and the logits come without their graph. `factor` is c where the losses
        have one for any logits. Otherwise c is looked for, on a CPU alone: a GPU would have to be waited for.
        """
        leaf = self.logits.detach().float().requires_grad_()
        loss = generator(leaf)
        (at_generator,) = torch.autograd.grad(loss, leaf)
        factors: Tensor | float | None = factor
        if factor is not None or leaf.device.type == "cpu":
            (at_discriminator,) = torch.autograd.grad(discriminator(leaf), leaf)
            if factor is None:
                factors = proportion(at_generator, at_discriminator, mixed=mixes_images(self.network))
            if factors is not None:
                gradient = factors * self._one_backward(share * at_discriminator) / share
                return loss.detach(), gradient, self.logits.detach()
        return loss.detach(), *self._first_of_two(at_generator)

    def _one_backward(self, at_logits: Tensor) -> Tensor:
        """Add the gradients of the weights, and return that at `output`."""
        torch.autograd.backward(self.logits, at_logits.to(self.logits.dtype))
        gradient, self.output.grad = self.output.grad, None
        assert gradient is not None
        return gradient

    def _first_of_two(self, at_logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the gradient at `output`, and the logits with a graph that can be gone through once more."""
        again = not is_compiled(self.network)
        at_logits = at_logits.to(self.logits.dtype)
        (gradient,) = torch.autograd.grad(self.logits, self.output, at_logits, retain_graph=again)
        return gradient, self.logits if again else None


def proportion(generator: Tensor, discriminator: Tensor, *, mixed: bool = False) -> Tensor | None:
    """Find c with g_G = c g_D at all logits of an image: two gradients (B, ...) float32 -> (B, 1, 1, 1).

    Return None where an image has no c, or a c so large that g_D is all but 0. `mixed`: the images are not independent,
    so that one c must serve all. All ranks give the same answer. It is read at once, which waits for a GPU.
    """
    shape = (1, -1) if mixed else (len(generator), -1)
    g, d = generator.reshape(shape), discriminator.reshape(shape)  # (B, M)
    place = d.abs().argmax(dim=1, keepdim=True)
    factors = g.gather(1, place) / d.gather(1, place)  # (B, 1); infinite or NaN where d is 0
    error = (g - factors * d).abs().amax(dim=1, keepdim=True)
    holds = (error <= _ROUNDING * g.abs().amax(dim=1, keepdim=True)) & (factors.abs() <= _LARGEST)
    return None if any_rank(~holds.all()) else factors.view(-1, 1, 1, 1)


def mixes_images(network: nn.Module) -> bool:
    """Return whether the logits of an image depend on the other images of the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def is_compiled(network: nn.Module) -> bool:
    """Return whether `network` is called through `torch.compile`, whose graphs may free what they saved."""
    return getattr(network, "_compiled_call_impl", None) is not None
