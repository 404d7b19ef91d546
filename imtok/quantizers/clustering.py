"""Placement of codes other than by learning: the k-means start, and anchors for codes that are little used.

All of it works on the joint batch over ranks.
"""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

import math

import torch
from torch import Tensor

from imtok.distributed import (
    draw_rows,
    from_first_rank,
    joint_size,
    rows_at_least_distance,
    standard_deviation,
    sum_over_ranks,
)
from imtok.kernels import codebook_statistics, nearest_codes, unit_rows
from imtok.quantizers.refusal import refusing_together

_KMEANS_ITERATIONS = 10


def kmeans(rows: Tensor, num_codes: int, metric: str) -> tuple[Tensor, Tensor]:
    """Cluster latents by Lloyd's k-means: (N, D) -> centres (K, D), number of latents of each (K,).

    For the cosine metric rows and centres are unit vectors. A centre left without latents keeps its place. Where
    there are fewer latents than codes, noise of a tenth of the standard deviation tells repeated latents apart.
    """
    centres = draw_rows(rows, num_codes)
    total, _ = joint_size(rows)
    if total < num_codes:
        noise = from_first_rank(torch.randn_like(centres[total:]))
        centres[total:] += 0.1 * standard_deviation(rows) * noise
    counts = centres.new_ones(num_codes)
    for _ in range(_KMEANS_ITERATIONS):
        if metric == "cosine":
            centres = unit_rows(centres)
        with refusing_together(rows.device):
            codes = nearest_codes(rows, centres)
        counts, sums = codebook_statistics(rows, codes, num_codes)
        sum_over_ranks(counts, sums)
        centres = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), centres)
    return (unit_rows(centres) if metric == "cosine" else centres), counts


def anchors(rows: Tensor, codebook: Tensor) -> Tensor:
    """Find the latent of the joint batch nearest to each code: (N, D), (K, D) -> (K, D); CVQ's `closest` anchors."""
    if len(rows) == 0:
        return rows_at_least_distance(codebook.new_full((len(codebook),), math.inf), torch.zeros_like(codebook))
    nearest = rows[nearest_codes(codebook, rows)]
    return rows_at_least_distance((nearest - codebook).square().sum(dim=1), nearest)


def anchor_pull(usage: Tensor, decay: float) -> Tensor:
    """Return how far each code moves to its anchor, in [0, 1]: moving shares of use (K,) -> (K,).

    exp(-10 K p / (1 - decay) - 1e-3), equation 5 of Zheng & Vedaldi: next to nothing for a code at its fair share 1/K,
    nearly all the way for one that is not used.
    """
    return torch.exp(-usage * len(usage) * 10 / (1 - decay) - 1e-3)
