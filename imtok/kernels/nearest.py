"""The search for the nearest code, in tiles: the N x K table of distances is never built."""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["euclidean", "cosine", "dot"]

# A tile of scores is at most 512 x 16384 floats, 32 MB: it stays near the cache, and products are large enough
# to run at full speed.
_TILE_ROWS = 512
_TILE_CODES = 16384


def nearest_codes(latents: Tensor, codebook: Tensor, metric: Metric = "euclidean") -> Tensor:
    """Index of the codebook row closest to each latent: (N, D), (K, D) -> (N,) int64 in [0, K).

    `euclidean`: |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 cannot change which row wins, so the least
    |e|^2 / 2 - z.e is sought. `cosine`: the greatest z.e / |e|; the length of z cannot change the winner. `dot`:
    the greatest z.e.
    Equal scores go to the lower index. Computes in the latents' own precision, and at least in float32, whatever
    autocast surrounds it.

    Raises ValueError on shapes that do not fit, on an empty codebook, on an unknown metric and on NaN or infinite
    latents.
    """
    if metric not in ("euclidean", "cosine", "dot"):
        raise ValueError(f"metric is {metric!r}, expected euclidean, cosine or dot")
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"latents {tuple(latents.shape)} and codebook {tuple(codebook.shape)} must be (N, D) and (K, D)"
        )
    if len(codebook) == 0:
        raise ValueError("the codebook has no rows")
    dtype = torch.promote_types(torch.promote_types(latents.dtype, codebook.dtype), torch.float32)
    latents, codebook = latents.detach().to(dtype), codebook.detach().to(dtype)
    if metric == "cosine":
        codebook = F.normalize(codebook, dim=1)
    half_norms = codebook.square().sum(dim=1) / 2 if metric == "euclidean" else codebook.new_zeros(len(codebook))
    codes = torch.empty(len(latents), dtype=torch.int64, device=latents.device)
    finite = torch.ones((), dtype=torch.bool, device=latents.device)
    with torch.autocast(latents.device.type, enabled=False):
        for start in range(0, len(latents), _TILE_ROWS):
            rows = latents[start : start + _TILE_ROWS]
            best, index = _search(rows, codebook, half_norms)
            codes[start : start + _TILE_ROWS] = index
            finite &= torch.isfinite(best).all()
    if not finite:
        raise ValueError("the latents or the codebook hold NaN or infinite values; no nearest code exists")
    return codes


def _search(rows: Tensor, codebook: Tensor, half_norms: Tensor) -> tuple[Tensor, Tensor]:
    """Least score and its index over the codebook, a tile of codes at a time: (n, D) -> (n,), (n,)."""
    best, index = _search_tile(rows, codebook[:_TILE_CODES], half_norms[:_TILE_CODES])
    for start in range(_TILE_CODES, len(codebook), _TILE_CODES):
        stop = start + _TILE_CODES
        tile_best, tile_index = _search_tile(rows, codebook[start:stop], half_norms[start:stop])
        # Strictly less, so that equal scores stay with the lower index; a NaN wins, so that the caller sees it.
        better = (tile_best < best) | tile_best.isnan()
        best = torch.where(better, tile_best, best)
        index = torch.where(better, tile_index + start, index)
    return best, index


def _search_tile(rows: Tensor, codebook: Tensor, half_norms: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.addmm(half_norms, rows, codebook.T, alpha=-1)  # (n, k)
    best, index = scores.min(dim=1)
    return best, index
