"""Entropy of soft code assignments (Yu et al., 2023, MAGVIT-v2, equation 4; LlamaGen, IBQ).

The one quantity here that needs the whole N x K table, so it is computed only where its weight is above 0.
"""

# Axes: N vectors, K codes.

from __future__ import annotations

import math

import torch
from torch import Tensor


def assignment_entropies(logits: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Entropies of p = softmax(logits), in nats: (N, K) -> mean over N of H(p), and H(mean over N of p); scalars.

    The first is low where every vector is sure of its code, the second high where the batch uses all codes; at most
    log K both. Peers take the second as -sum p log(p + eps) with eps 1e-5, which for 2^18 codes is more than a fair
    share 1 / K and so weighs on every term: `eps` reproduces them, 0 is exact. Finite gradients throughout, since
    the mean is taken in logarithms. No vectors: zero both.
    """
    if len(logits) == 0:
        return logits.sum(), logits.sum()
    log_shares = logits.log_softmax(dim=1)  # (N, K)
    sample = -(log_shares.exp() * log_shares).sum(dim=1).mean()
    log_mean = log_shares.logsumexp(dim=0) - math.log(len(logits))  # (K,)
    floored = torch.logaddexp(log_mean, log_mean.new_tensor(math.log(eps))) if eps > 0 else log_mean
    return sample, -(log_mean.exp() * floored).sum()


def assignment_logits(latents: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Minus the squared distance, up to a constant a row, or for `dot` the product: (N, D), (K, D) -> (N, K).

    |z|^2 is left out of -|z - e|^2: a softmax over the codes does not see what is the same for all of them.
    """
    products = latents @ codebook.to(latents.dtype).T
    return products if metric == "dot" else 2 * products - codebook.to(latents.dtype).square().sum(dim=1)
