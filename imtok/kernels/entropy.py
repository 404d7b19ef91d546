"""Entropies of the soft choice of a code: small where a latent is sure, large where a batch uses all codes.

Of softmax(logits) over a learned codebook (Yu et al., 2023, MAGVIT-v2, equation 4; LlamaGen, IBQ) the whole N x K
table is needed, so it is computed only where its weight is above 0.

Of the soft choice among all 2^D sign vectors c, softmax(-|z - c|^2 / T) = softmax(2 z.c / T), it is not: the exponent
is a sum over dimensions, so the dimensions choose independently, + with probability sigmoid(4 s z / T), where s is
the magnitude of a sign (Zhao et al., 2024).
"""

# Axes: N vectors, K codes; B batch, D latent channels, H x W latent grid, g dimensions in each of G = D/g groups.

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A sigmoid is 0 or 1 well before, even in float64; infinite logits would turn 0 * inf into NaN.
_LARGEST_LOGIT = 1000.0


class SignEntropies(NamedTuple):
    """The two terms of an entropy loss: scalars, in nats."""

    sample: Tensor  # mean entropy of a latent's own choice, in [0, D log 2]: low when choices are sure
    batch: Tensor  # entropy of the mean choice, in [0, D log 2]: high when all codes are used


def assignment_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropies of p = softmax(logits), in nats: (N, K) -> mean over N of H(p), and H(mean over N of p); scalars.

    The first is low where every vector is sure of its code, the second high where the batch uses all codes; at most
    log K both. Peers take the second as -sum p log(p + eps) with eps 1e-5, which for 2^18 codes is more than a fair
    share 1 / K and so weighs on every term; this is exact. Finite gradients throughout, since the mean is taken in
    logarithms. No vectors: zero both.
    """
    if len(logits) == 0:
        return logits.sum(), logits.sum()
    log_shares = logits.log_softmax(dim=1)  # (N, K)
    sample = -(log_shares.exp() * log_shares).sum(dim=1).mean()
    log_mean = log_shares.logsumexp(dim=0) - math.log(len(logits))  # (K,)
    return sample, -(log_mean.exp() * log_mean).sum()


def assignment_logits(latents: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Minus the squared distance, up to a constant a row, or for `dot` the product: (N, D), (K, D) -> (N, K).

    |z|^2 is left out of -|z - e|^2: a softmax over the codes does not see what is the same for all of them.
    """
    products = latents @ codebook.to(latents.dtype).T
    return products if metric == "dot" else 2 * products - codebook.to(latents.dtype).square().sum(dim=1)


def sign_entropies(points: Tensor, magnitude: float, temperature: float, group: int = 1) -> SignEntropies:
    """Both entropies of the soft choice among the 2^D codes of +-magnitude: (B, D, H, W) float -> two scalars.

    `sample` is exact: a sum of Bernoulli entropies over dimensions. `batch` takes groups of `group` neighbouring
    dimensions as independent of each other and is exact inside a group: 1 is BSQ's analytic form (Zhao et al.,
    2024), D the entropy over the whole codebook (Yu et al., 2023, equation 5). Entropies of parts add
    up to no less than that of the whole, so `batch` is the higher the smaller the groups. Both are zero where there
    are no points. Gradients are finite however low the temperature is.

    Raises ValueError where `group` does not divide D.
    """
    if group < 1 or points.shape[1] % group:
        raise ValueError(f"group is {group}, expected a divisor of the {points.shape[1]} dimensions")
    count = max(points.numel() // points.shape[1], 1)
    logits = (points * (4 * magnitude / temperature)).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    size = logits.abs()
    # For p = sigmoid(x) the entropy is log(1 + e^-|x|) + |x| sigmoid(-|x|): even in x, no log of a small number.
    sample = (F.softplus(-size) + size * torch.sigmoid(-size)).sum() / count
    chances = _mean_of_signs(logits, count) if group == 1 else _mean_of_groups(logits, count, group)
    least = torch.finfo(chances.dtype).tiny
    return SignEntropies(sample, -(chances * chances.clamp(min=least).log()).sum())


def _mean_of_signs(logits: Tensor, count: int) -> Tensor:
    """Mean chance of - and of + in each dimension: (B, D, H, W) -> (D, 2)."""
    # Each from its own sigmoid: 1 - p would lose a chance below 6e-8.
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    return torch.stack([minus.sum(dim=(0, 2, 3)), plus.sum(dim=(0, 2, 3))], dim=1) / count


def _mean_of_groups(logits: Tensor, count: int, group: int) -> Tensor:
    """Mean chance of each of the 2^g codes of each group: (B, D, H, W) -> (G, 2^g).

    The chance of a code is the product of those of its two halves, so the mean over vectors is a matrix product of
    the halves: N x 2^(g/2) numbers are held where the chances of all codes would be N x 2^g.
    """
    grouped = logits.transpose(0, 1).reshape(-1, group, count)  # (G, g, N)
    first, second = _chances(grouped[:, : group // 2]), _chances(grouped[:, group // 2 :])
    means = first @ second.transpose(1, 2) / count  # (G, 2^(g/2), 2^(g - g/2))
    return means.flatten(1)


def _chances(logits: Tensor) -> Tensor:
    """Chance of each sign vector, in the order of their codes: (G, g, N) -> (G, 2^g, N)."""
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    chances = torch.ones_like(logits[:, :1])
    for dimension in range(logits.shape[1]):
        one = slice(dimension, dimension + 1)
        chances = torch.stack([chances * minus[:, one], chances * plus[:, one]], dim=2).flatten(1, 2)
    return chances
