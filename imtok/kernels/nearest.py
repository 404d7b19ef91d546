"""The search for the nearest code: the N x K table of scores is never built.

Two ways, both exact. Long vectors: tiles of a matrix product, each reduced while it is in the cache
(`nearest_tiles`), or bf16 products with a second look where they are faster (`nearest_coarse`). Short vectors (D up to
16): one compiled loop over the codes for each latent, since a product of so few terms would spend its time writing
scores (`nearest_short`). A GPU has a kernel of its own (`nearest_gpu`).
"""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from imtok.errors import LatentsError
from imtok.kernels import nearest_coarse, nearest_short
from imtok.kernels.nearest_gpu import LEAST_WORK, search_on_gpu
from imtok.kernels.nearest_tiles import TILE_ROWS, centred, search_tiles, search_traced
from imtok.kernels.sphere import unit_rows

Metric = Literal["euclidean", "cosine", "dot"]

_CENTRE_CODES = 64
_CHUNK = 2**22  # numbers in the latents whose centred copies are held at a time: 16 MB


def nearest_codes(latents: Tensor, codebook: Tensor, metric: Metric = "euclidean") -> Tensor:
    """Return the index of the codebook row closest to each latent: (N, D), (K, D) -> (N,) int64 in [0, K).

    `euclidean`: |z - e|^2 = |z|^2 - 2 z.e + |e|^2. |z|^2 cannot change which row wins, so the winner has the least
    |e|^2 / 2 - z.e. A centre of the codebook is subtracted from both, so that nothing cancels far from the origin.
    `cosine`: the winner has the greatest z.e / |e|; the length of z cannot change it. `dot`: the greatest z.e.
    Equal scores go to the lower index. The search computes in the dtype of the latents, at least in float32, under any
    autocast. The winner is that of exact arithmetic, unless two codes differ by less than the rounding.

    While a graph is traced (`torch.export`, `torch.compile`) the search is by plain products and checks no values.

    Raises ValueError on shapes that do not fit, on an empty codebook, on an unknown metric, on NaN or infinite
    latents, and on values so large that their products overflow.
    """
    _check(latents, codebook, metric)
    dtype = torch.promote_types(torch.promote_types(latents.dtype, codebook.dtype), torch.float32)
    with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
        table = codebook.detach().to(dtype)
        if metric == "cosine":
            table = unit_rows(table)
        centre = _centre(table) if metric == "euclidean" else None
        if torch.compiler.is_compiling():  # values are not read there, so nothing is refused
            return search_traced(centred(latents.detach().to(dtype), centre), table, centre)
        step = max(_CHUNK // (latents.shape[1] + 1) // TILE_ROWS, 1) * TILE_ROWS
        chunks = [
            _search(centred(latents[start : start + step].detach().to(dtype), centre), table, centre)
            for start in range(0, max(len(latents), 1), step)
        ]
        best = torch.cat([best for best, _ in chunks])
        if not torch.isfinite(best).all():
            raise LatentsError(
                f"the latents or the codebook hold NaN or infinite values, or values too large for {dtype}; "
                "no nearest code exists"
            )
        return torch.cat([codes for _, codes in chunks])


def _check(latents: Tensor, codebook: Tensor, metric: str) -> None:
    if metric not in ("euclidean", "cosine", "dot"):
        raise ValueError(f"metric is {metric!r}, expected euclidean, cosine or dot")
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"latents {tuple(latents.shape)} and codebook {tuple(codebook.shape)} must be (N, D) and (K, D)"
        )
    if len(codebook) == 0:
        raise ValueError("the codebook has no rows")


def _centre(table: Tensor) -> Tensor:
    """Return the median of some codes in each dimension, (K, D) -> (D,): a few distant codes do not move it."""
    some = table[:: max(len(table) // _CENTRE_CODES, 1)]
    return some.sort(dim=0).values[(len(some) - 1) // 2]  # ONNX has no operator for the median


def _search(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,), by the method that is faster for these shapes."""
    if not rows.is_cuda:
        short = rows.shape[1] <= nearest_short.FUSED_DIM and rows.dtype == torch.float32 and rows.device.type == "cpu"
        if short and len(rows) * len(table) >= nearest_short.fused.least_work:
            return nearest_short.search_fused(rows, table, centre)
        if rows.dtype == torch.float32 and rows.device.type == "cpu" and _coarse(rows.numel() * len(table)):
            found = nearest_coarse.search_coarse(rows, table, centre)
            if found is not None:
                return found
        return search_tiles(rows, table, centre)
    if rows.dtype == torch.float32 and len(rows) * len(table) >= LEAST_WORK:
        found = search_on_gpu(rows, table, centre)
        if found is not None:
            return found
    # A GPU may compute float32 products in TF32, a setting of the whole process, and so pick wrong codes. float64
    # products never use TF32.
    best, codes = search_tiles(rows.double(), table, centre)
    return best.to(rows.dtype), codes


def _coarse(work: int) -> bool:
    """Choose bf16 products for a search of so many multiply-adds."""
    enabled = work >= nearest_coarse.LEAST_WORK and not torch.compiler.is_compiling()
    return enabled and nearest_coarse.bf16_products_are_faster()
