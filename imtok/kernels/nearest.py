"""The search for the nearest code: the N x K table of scores is never built.

Two ways, both exact. Long vectors: tiles of a matrix product, each reduced while it is in the cache. Short vectors
(D up to 16): one compiled loop over the codes for sixteen latents at a time, since a product of so few terms would
spend its time writing scores. Both first find the least score of each block of 64 codes, which is a vector
operation, and search for the index of the winner in one block only. A GPU has a kernel of its own (`nearest_gpu`).
"""

# Axes: N vectors, D dimensions, K codes; a block is 64 neighbouring codes.

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.errors import LatentsError
from imtok.kernels.compiling import Kernel
from imtok.kernels.nearest_gpu import LEAST_WORK, search_on_gpu
from imtok.kernels.sphere import unit_rows

Metric = Literal["euclidean", "cosine", "dot"]

_BLOCK = 64
_CENTRE_CODES = 64
_CHUNK = 2**21  # numbers in the latents whose centred copies are held at a time: 8 MB
_TILE_ROWS, _TILE_CODES = 1024, 2048  # 8 MB of scores
_FUSED_DIM = 16  # above it a matrix product is faster
_FUSED_ROWS, _FUSED_CODES = 1024, 8192


def nearest_codes(latents: Tensor, codebook: Tensor, metric: Metric = "euclidean") -> Tensor:
    """Return the index of the codebook row closest to each latent: (N, D), (K, D) -> (N,) int64 in [0, K).

    `euclidean`: |z - e|^2 = |z|^2 - 2 z.e + |e|^2. |z|^2 cannot change which row wins, so the winner has the least
    |e|^2 / 2 - z.e. A centre of the codebook is subtracted from both, so that nothing cancels far from the origin.
    `cosine`: the winner has the greatest z.e / |e|; the length of z cannot change it. `dot`: the greatest z.e.
    Equal scores go to the lower index. The search computes in the dtype of the latents, at least in float32, under any
    autocast. The winner is that of exact arithmetic, unless two codes differ by less than the rounding.

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
        step = max(_CHUNK // (latents.shape[1] + 1) // _TILE_ROWS, 1) * _TILE_ROWS
        chunks = [
            _search(_centred(latents[start : start + step].detach().to(dtype), centre), table, centre)
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
    return table[:: max(len(table) // _CENTRE_CODES, 1)].median(dim=0).values


def _centred(rows: Tensor, centre: Tensor | None) -> Tensor:
    return rows if centre is None else rows - centre


def _tile_of_codes(table: Tensor, centre: Tensor | None, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Return codes `start` to `start + size` as the search reads them: centred rows (size, D) and offsets (size,).

    The score of a code is its offset minus its product with the latent. Rows beyond the codebook have an infinite
    offset.
    """
    rows = _centred(table[start : start + size], centre)
    offsets = rows.new_zeros(len(rows)) if centre is None else rows.square().sum(dim=1) / 2
    missing = size - len(rows)
    if missing:
        rows = F.pad(rows, (0, 0, 0, missing))
        offsets = F.pad(offsets, (0, missing), value=torch.inf)
    return rows, offsets


def _whole_blocks(count: int) -> int:
    return -(-count // _BLOCK) * _BLOCK


def _search(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,), by the method that is faster for these shapes."""
    short = rows.shape[1] <= _FUSED_DIM and rows.dtype == torch.float32 and rows.device.type == "cpu"
    if short and len(rows) * len(table) >= _fused.least_work:
        return _search_fused(rows, table, centre)
    if not rows.is_cuda:
        return _search_tiles(rows, table, centre)
    if rows.dtype == torch.float32 and len(rows) * len(table) >= LEAST_WORK:
        found = search_on_gpu(rows, table, centre)
        if found is not None:
            return found
    # A GPU may compute float32 products in TF32, a setting of the whole process, and so pick wrong codes. float64
    # products never use TF32.
    best, codes = _search_tiles(rows.double(), table, centre)
    return best.to(rows.dtype), codes


# --- long vectors


def _search_tiles(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,), by products of tiles."""
    best = rows.new_full((len(rows),), torch.inf)
    codes = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)  # the last column takes up the offsets
    size = min(_TILE_CODES, _whole_blocks(len(table)))
    scores = rows.new_empty(min(_TILE_ROWS, len(rows)), size)
    for start in range(0, len(table), size):
        tile, offsets = _tile_of_codes(table, centre, start, size)
        weights = torch.cat([-tile, offsets.unsqueeze(1)], dim=1).T.to(rows.dtype)  # (D + 1, size)
        for row in range(0, len(rows), _TILE_ROWS):
            place = slice(row, row + _TILE_ROWS)
            found = torch.mm(rows[place], weights, out=scores[: len(rows[place])])
            _keep_better(found, start, best[place], codes[place])
    return best, codes


def _keep_better(scores: Tensor, start: int, best: Tensor, codes: Tensor) -> None:
    """Write scores of a tile (n, k), and their codes, wherever they are less than `best`."""
    blocks = scores.view(len(scores), -1, _BLOCK)
    minima = blocks.amin(dim=2)  # (n, k / 64)
    least = minima.amin(dim=1)
    # Strictly less, so that equal scores stay with the lower index; a NaN is kept, so that the caller sees it.
    better = ((least < best) | least.isnan()).nonzero().squeeze(1)
    block = minima[better].argmin(dim=1)
    best[better] = least[better]
    codes[better] = start + block * _BLOCK + blocks[better, block].argmin(dim=1)


# --- short vectors


def _search_fused(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,), by the compiled loop over tiles of one size."""
    count, dim = rows.shape
    size = min(_FUSED_CODES, max(_BLOCK * 16, 2 ** (len(table) - 1).bit_length()))  # few sizes, so few compilations
    columns = F.pad(rows.T, (0, -count % _FUSED_ROWS)).contiguous()  # (D, n padded)
    tiles = columns.view(dim, -1, _FUSED_ROWS).transpose(0, 1).contiguous()  # (n / 1024, D, 1024)
    best = rows.new_full((len(tiles), _FUSED_ROWS), torch.inf)
    codes = torch.zeros(len(tiles), _FUSED_ROWS, dtype=torch.int64)
    for start in range(0, len(table), size):
        tile, offsets = _tile_of_codes(table, centre, start, size)
        by_code = tile.view(-1, _BLOCK, dim)
        by_dim = by_code.transpose(1, 2).contiguous()
        offsets = offsets.view(-1, _BLOCK)
        for i, piece in enumerate(tiles):
            least, code = _fused(piece, by_code, by_dim, offsets, family=(dim, size), work=count * len(table))
            better = (least < best[i]) | least.isnan()
            best[i] = torch.where(better, least, best[i])
            codes[i] = torch.where(better, code + start, codes[i])
    return best.view(-1)[:count], codes.view(-1)[:count]


def _nearest_in_tile(latents: Tensor, by_code: Tensor, by_dim: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Search one tile: (D, n), codes as (k/64, 64, D) and as (k/64, D, 64), (k/64, 64) -> scores (n,), codes (n,).

    The sums over D are written out: each is a chain of multiply-adds in registers. The codes come in both orders: the
    search reads one value of a code for many latents, and the second step reads many codes for one latent.
    """
    scores = offsets[:, :, None]
    for d in range(latents.shape[0]):
        scores = scores - by_code[:, :, d, None] * latents[d]  # (k/64, 64, n), never in memory
    least, block = scores.amin(dim=1).min(dim=0)
    again = offsets[block]
    for d in range(latents.shape[0]):
        again = again - latents[d][:, None] * by_dim[block, d]  # (n, 64)
    return least, block * _BLOCK + again.argmin(dim=1)


def _nearest_by_product(latents: Tensor, by_code: Tensor, _by_dim: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Search one tile by a product that is written to memory, on machines that cannot compile."""
    scores = offsets.flatten() - latents.T @ by_code.flatten(0, 1).T  # (n, k)
    best, codes = latents.new_full((len(scores),), torch.inf), by_code.new_zeros(len(scores), dtype=torch.int64)
    _keep_better(scores, 0, best, codes)
    return best, codes


# In scores: below, a product takes a few milliseconds.
_fused = Kernel(_nearest_in_tile, least_work=2**23, lengths=(), plain=_nearest_by_product)
