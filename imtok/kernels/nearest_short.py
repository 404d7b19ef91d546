"""The search for the nearest code of short vectors: one compiled loop over the codes, no score ever in memory.

The codebook is cut into panels of 256 codes, of which one stays in the cache while all latents pass over it. Each
latent is compared with sixteen codes at a time. The first step finds the least score and its panel, the second the
code in that panel.
"""

# Axes: n latents, D dimensions, K codes; a panel is G groups of L neighbouring codes, k = K / (G L) panels.

from __future__ import annotations

import torch
from torch import Tensor

from imtok.kernels.compiling import Kernel
from imtok.kernels.nearest_tiles import TILE_CODES, TILE_ROWS, keep_better, search_tiles, tile_of_codes

FUSED_DIM = 16  # above it a matrix product is faster

_LANES, _GROUPS = 16, 16
_PANEL = _LANES * _GROUPS
_PIECE = 2**21  # numbers in the codes that are laid out at a time: 8 MB
_LOST = -(2**62)  # stays negative when the number of a piece's first code is added
_MINIMA = 2**20  # least scores of panels that are held at a time: 4 MB


def search_fused(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return least scores and their codes, (n,) and (n,) int64, of centred float32 `rows` (n, D) on a CPU."""
    best = rows.new_full((len(rows),), torch.inf)
    codes = torch.zeros(len(rows), dtype=torch.int64)
    rows = rows.contiguous()
    size = min(max(_PIECE // rows.shape[1] // _PANEL, 1), -(-len(table) // _PANEL)) * _PANEL
    for start in range(0, len(table), size):
        count = -(-min(size, len(table) - start) // _PANEL) * _PANEL
        tile, offsets = tile_of_codes(table, centre, start, count)
        panels = tile.view(-1, _GROUPS, _LANES, tile.shape[1]).transpose(2, 3).contiguous()  # (k, G, D, L)
        _search_panels(rows, panels, offsets.view(-1, _GROUPS, _LANES), start, best, codes)
    lost = (codes < 0).nonzero().squeeze(1)
    if len(lost):  # latents with NaN, or a compiler that rounds the same sum in two ways
        best[lost], codes[lost] = search_tiles(rows[lost], table, centre)
    return best, codes


def _search_panels(rows: Tensor, panels: Tensor, offsets: Tensor, start: int, best: Tensor, codes: Tensor) -> None:
    """Write the least scores of some panels, and their codes, over `best` and `codes` (n,) where they are less."""
    step = max(_MINIMA // len(panels), 1)
    # A loop over few panels is split among threads in another way than one over many.
    family = (rows.shape[1], len(panels) < torch.get_num_threads())
    for row in range(0, len(rows), step):
        place = slice(row, row + step)
        least, code = fused(rows[place], panels, offsets, family=family, work=fused.least_work)
        better = (least < best[place]) | least.isnan()
        best[place] = torch.where(better, least, best[place])
        codes[place] = torch.where(better, code + start, codes[place])


def _nearest_in_panels(latents: Tensor, panels: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Search panels: (n, D), codes as (k, G, D, L), offsets (k, G, L) -> least scores (n,), codes (n,) int64.

    The sums over D are written out: each is a chain of multiply-adds in registers, in the same order in both steps,
    so that the second step finds the score of the first again. Among equal scores the lowest code is taken. A code is
    _LOST where the score is NaN, or is not found again.
    """
    scores = offsets[:, None]
    for d in range(latents.shape[1]):
        scores = scores - latents[None, :, d, None, None] * panels[:, None, :, d]  # (k, n, G, L), never in memory
    least, panel = scores.amin(dim=(2, 3)).min(dim=0)
    again = offsets[panel]
    for d in range(latents.shape[1]):
        again = again - latents[:, d, None, None] * panels[panel, :, d]  # (n, G, L)
    inside = torch.arange(_PANEL, dtype=torch.int32).view(_GROUPS, _LANES)
    first = torch.where(again <= least[:, None, None], inside, _PANEL).amin(dim=(1, 2))
    return least, torch.where(first < _PANEL, panel * _PANEL + first, _LOST)


def _nearest_by_product(latents: Tensor, panels: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Search panels by products that are written to memory, on machines that cannot compile."""
    table = panels.transpose(2, 3).reshape(-1, latents.shape[1])
    best, codes = latents.new_full((len(latents),), torch.inf), torch.zeros(len(latents), dtype=torch.int64)
    for start in range(0, len(table), TILE_CODES):
        tile, tile_offsets = table[start : start + TILE_CODES], offsets.flatten()[start : start + TILE_CODES]
        for row in range(0, len(latents), TILE_ROWS):
            place = slice(row, row + TILE_ROWS)
            scores = torch.addmm(tile_offsets, latents[place], tile.T, alpha=-1)
            keep_better(scores, start, best[place], codes[place])
    return best, codes


# In scores: below, a product takes a few milliseconds.
fused = Kernel(_nearest_in_panels, least_work=2**23, plain=_nearest_by_product)
