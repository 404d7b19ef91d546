"""The search for the nearest code by products of tiles, each reduced while it is in the cache.

The least score of each block of 64 codes is found first, which is a vector operation; the index of the winner is
searched for in one block only.
"""

# Axes: n latents, D dimensions, K codes; a block is 64 neighbouring codes.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64
TILE_ROWS, TILE_CODES = 4096, 2048  # at most
_TILE_SCORES = 2**21  # 8 MB


def search_tiles(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,) int64: `rows` (n, D) are centred, `table` (K, D) is not."""
    best = rows.new_full((len(rows),), torch.inf)
    codes = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    # The product is fastest with many latents and few codes; few latents take more codes, and so fewer steps.
    most = max(_TILE_SCORES // max(min(TILE_ROWS, len(rows)), 1) // BLOCK, 1) * BLOCK
    size = min(most, TILE_CODES, whole_blocks(len(table)))
    scores = rows.new_empty(min(TILE_ROWS, len(rows)), size)
    for start in range(0, len(table), size):
        tile, offsets = tile_of_codes(table, centre, start, size)
        tile, offsets = tile.to(rows.dtype), offsets.to(rows.dtype)
        for row in range(0, len(rows), TILE_ROWS):
            place = slice(row, row + TILE_ROWS)
            found = torch.addmm(offsets, rows[place], tile.T, alpha=-1, out=scores[: len(rows[place])])
            keep_better(found, start, best[place], codes[place])
    return best, codes


def search_traced(rows: Tensor, table: Tensor, centre: Tensor | None) -> Tensor:
    """Return the codes of `search_tiles`, (n,) int64, by operations that a graph can hold for any n."""
    # On a GPU float32 products may be computed in TF32, which picks wrong codes.
    wide = rows.double() if rows.is_cuda else rows
    best, codes = wide[:, 0], torch.zeros_like(wide[:, 0], dtype=torch.int64)
    for start in range(0, len(table), TILE_CODES):
        tile, offsets = tile_of_codes(table, centre, start, min(TILE_CODES, len(table) - start))
        scores = torch.addmm(offsets.to(wide.dtype), wide, tile.to(wide.dtype).T, alpha=-1)  # (n, k)
        code = scores.argmin(dim=1)
        least = scores.gather(1, code.unsqueeze(1)).squeeze(1)
        better = least < best if start else torch.ones_like(code, dtype=torch.bool)
        best, codes = torch.where(better, least, best), torch.where(better, code + start, codes)
    return codes


def tile_of_codes(table: Tensor, centre: Tensor | None, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Return codes `start` to `start + size` as the search reads them: centred rows (size, D) and offsets (size,).

    The score of a code is its offset minus its product with the latent. Rows beyond the codebook have an infinite
    offset.
    """
    rows = centred(table[start : start + size], centre)
    offsets = rows.new_zeros(len(rows)) if centre is None else rows.square().sum(dim=1) / 2
    missing = size - len(rows)
    if missing:
        rows = F.pad(rows, (0, 0, 0, missing))
        offsets = F.pad(offsets, (0, missing), value=torch.inf)
    return rows, offsets


def centred(rows: Tensor, centre: Tensor | None) -> Tensor:
    """Subtract the centre, (n, D) and (D,) -> (n, D), where there is one."""
    return rows if centre is None else rows - centre


def whole_blocks(count: int) -> int:
    """Round a number of codes up to whole blocks."""
    return -(-count // BLOCK) * BLOCK


def keep_better(scores: Tensor, start: int, best: Tensor, codes: Tensor) -> None:
    """Write the least scores of a tile (n, k), and their codes, over `best` and `codes` (n,) where they are less.

    `start` is the tile's first code.
    """
    blocks = scores.view(len(scores), -1, BLOCK)
    minima = blocks.amin(dim=2)  # (n, k / 64)
    least = minima.amin(dim=1)
    # Strictly less, so that equal scores stay with the lower index; a NaN is kept, so that the caller sees it.
    better = ((least < best) | least.isnan()).nonzero().squeeze(1)
    block = minima[better].argmin(dim=1)
    best[better] = least[better]
    codes[better] = start + block * BLOCK + blocks[better, block].argmin(dim=1)
