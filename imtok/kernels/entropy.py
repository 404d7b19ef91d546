"""Entropies of the soft choice of a code: small where a latent is sure, large where a batch uses all codes.

The entropies of softmax(logits) over a learned codebook (Yu et al., 2023, MAGVIT-v2, equation 4; LlamaGen, IBQ) need
the whole N x K table, so quantizers compute them only where their weight is above 0.

The soft choice among all 2^D sign vectors c, softmax(-|z - c|^2 / T) = softmax(2 z.c / T), needs no table: the exponent
is a sum over dimensions, so the dimensions choose independently. Each chooses + with probability sigmoid(4 s z / T),
where s is the magnitude of a sign (Zhao et al., 2024).
"""

# Axes: N vectors, K codes; B batch, D latent channels, H x W latent grid, g dimensions in each of G = D/g groups.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A sigmoid is 0 or 1 well before, even in float64; infinite logits would turn 0 * inf into NaN.
_LARGEST_LOGIT = 1000.0

# Makes the mean over some rows, and the number of these, a mean over more rows: those of all ranks.
JointMean = Callable[[Tensor, int], Tensor]


class SignEntropies(NamedTuple):
    """The two terms of an entropy loss: scalars, in nats."""

    sample: Tensor  # mean entropy of a latent's own choice, in [0, D log 2]: low when choices are sure
    batch: Tensor  # entropy of the mean choice, in [0, D log 2]: high when all codes are used


def assignment_entropies(logits: Tensor, joint: JointMean | None = None) -> tuple[Tensor, Tensor]:
    """Return entropies of p = softmax(logits), in nats: (N, K) -> mean over N of H(p), and H(mean over N of p).

    The first is low where every vector is sure of its code, the second high where the batch uses all codes. Both are
    at most log K. Peers compute the second as -sum p log(p + eps) with eps 1e-5. For 2^18 codes this eps exceeds the
    even share 1 / K and changes every term; the formula here is exact. The mean is taken in logarithms, so all
    gradients are finite. Both are zero for no vectors. With `joint` the second is that of the joint mean of p.
    """
    if len(logits) == 0 and joint is None:
        return logits.sum(), logits.sum()
    log_shares = logits.log_softmax(dim=1)  # (N, K)
    if joint is not None:
        shares = log_shares.exp()
        sample = -(shares * log_shares).sum() / max(len(logits), 1)
        return sample, _entropy(joint(shares.sum(dim=0) / max(len(logits), 1), len(logits)))
    sample = -(log_shares.exp() * log_shares).sum(dim=1).mean()
    log_mean = log_shares.logsumexp(dim=0) - math.log(len(logits))  # (K,)
    return sample, -(log_mean.exp() * log_mean).sum()


def assignment_logits(latents: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Return minus the squared distance, up to a constant a row, or for `dot` the product: (N, D), (K, D) -> (N, K).

    |z|^2 is left out of -|z - e|^2: a softmax over the codes does not see what is the same for all of them.
    """
    products = latents @ codebook.to(latents.dtype).T
    return products if metric == "dot" else 2 * products - codebook.to(latents.dtype).square().sum(dim=1)


def sign_entropies(
    points: Tensor, magnitude: float, temperature: float, group: int = 1, joint: JointMean | None = None
) -> SignEntropies:
    """Return both entropies of the soft choice among 2^D codes of +-magnitude: (B, D, H, W) float -> two scalars.

    `sample` is exact: a sum of Bernoulli entropies over dimensions. `batch` treats groups of `group` neighbouring
    dimensions as independent and is exact inside a group. A group of 1 is BSQ's analytic form (Zhao et al., 2024); a
    group of D is the entropy over the whole codebook (Yu et al., 2023, equation 5). The entropies of parts sum to at
    least the entropy of the whole, so smaller groups give a higher `batch`. Both are zero for no points. Gradients are
    finite at every temperature. With `joint`, `batch` is that of the joint mean choice.

    Raises ValueError where `group` does not divide D.
    """
    if group < 1 or points.shape[1] % group:
        raise ValueError(f"group is {group}, expected a divisor of the {points.shape[1]} dimensions")
    count = max(points.numel() // points.shape[1], 1)
    logits = (points * (4 * magnitude / temperature)).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    size = logits.abs()
    # For p = sigmoid(x) the entropy is log(1 + e^-|x|) + |x| sigmoid(-|x|): even in x, no log of a small number.
    sample = (F.softplus(-size) + size * torch.sigmoid(-size)).sum() / count
    probabilities = _mean_of_signs(logits, count) if group == 1 else _mean_of_groups(logits, count, group)
    if joint is not None:
        probabilities = joint(probabilities, points.numel() // points.shape[1])
    return SignEntropies(sample, _entropy(probabilities))


def _entropy(probabilities: Tensor) -> Tensor:
    """Return -sum p log p over all values, (), with a finite gradient where p is 0."""
    least = torch.finfo(probabilities.dtype).tiny
    return -(probabilities * probabilities.clamp(min=least).log()).sum()


def _mean_of_signs(logits: Tensor, count: int) -> Tensor:
    """Return the mean probability of - and of + in each dimension: (B, D, H, W) -> (D, 2)."""
    # Each comes from its own sigmoid: 1 - p would lose a probability below 6e-8.
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    return torch.stack([minus.sum(dim=(0, 2, 3)), plus.sum(dim=(0, 2, 3))], dim=1) / count


def _mean_of_groups(logits: Tensor, count: int, group: int) -> Tensor:
    """Return the mean probability of each of the 2^g codes of each group: (B, D, H, W) -> (G, 2^g).

    The probability of a code is the product of the probabilities of its two halves. The mean over vectors is then a
    matrix product of the halves, which holds N x 2^(g/2) numbers instead of N x 2^g.
    """
    grouped = logits.transpose(0, 1).reshape(-1, group, count)  # (G, g, N)
    first, second = _probabilities(grouped[:, : group // 2]), _probabilities(grouped[:, group // 2 :])
    means = first @ second.transpose(1, 2) / count  # (G, 2^(g/2), 2^(g - g/2))
    return means.flatten(1)


def _probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each sign vector, in the order of codes: (G, g, N) -> (G, 2^g, N)."""
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    probabilities = torch.ones_like(logits[:, :1])
    for dimension in range(logits.shape[1]):
        one = slice(dimension, dimension + 1)
        probabilities = torch.stack([probabilities * minus[:, one], probabilities * plus[:, one]], dim=2).flatten(1, 2)
    return probabilities
