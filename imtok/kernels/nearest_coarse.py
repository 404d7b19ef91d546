"""The search for the nearest code by bf16 products with an error bound, where the processor multiplies bf16 faster.

A bf16 product gives each score with a bound on its error. Codes whose least possible score is not above the greatest
possible score of another code are candidates. A single candidate is the nearest code; several are compared in double
precision. So the result is that of exact arithmetic on the centred vectors, as close as that in float32 or closer.
"""

# Axes: n latents, D dimensions, K codes; a block is 64 neighbouring codes; a pair is a latent and a candidate.

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from imtok.kernels.nearest_tiles import BLOCK, TILE_ROWS, tile_of_codes, whole_blocks

LEAST_WORK = 2**31  # in multiply-adds: below, a search takes too little time to choose for

_TILE_CODES = 512
_MOST_BLOCKS = 16  # candidate blocks a latent, on average, above which float32 is faster
_PAIRS = 2**14  # compared at a time
_GAIN = 0.75  # share of the time in float32 below which bf16 repays the second look; the processors are near .5 or 1
_BF16 = 2.0**-8  # half the distance of neighbouring numbers, relative
_TINY = 2.0**-100  # above the products that a processor may take for zero


_decided: bool | None = None  # of the whole process, as jobs search in threads


def bf16_products_are_faster() -> bool:
    """Say whether bf16 products are much faster here, timed once for each number of threads, for some 50 ms.

    Within `bf16_products_decided` no time is taken.
    """
    if not torch.cpu._is_avx512_bf16_supported():
        return False
    return _speeds.gain(torch.get_num_threads()) < _GAIN if _decided is None else _decided


@contextmanager
def bf16_products_decided(use: bool) -> Iterator[None]:
    """Decide within the block whether searches use bf16 products, on processors that have them, in all threads.

    Codes that are nearer to each other than float32 can tell may differ between the two ways.
    """
    global _decided
    before, _decided = _decided, use
    try:
        yield
    finally:
        _decided = before


class _Speeds:
    """Times of bf16 products as shares of those in float32, by number of threads."""

    def __init__(self) -> None:
        self._gains: dict[int, float] = {}
        self._lock = threading.Lock()

    def gain(self, threads: int) -> float:
        with self._lock:
            if threads not in self._gains:
                rounds = [(_product_seconds(torch.bfloat16), _product_seconds(torch.float32)) for _ in range(8)]
                bf16, fp32 = zip(*rounds, strict=True)  # in turn, as other processes may compute too
                self._gains[threads] = min(bf16) / min(fp32)
            return self._gains[threads]


_speeds = _Speeds()


def _product_seconds(dtype: torch.dtype) -> float:
    values = torch.linspace(-1, 1, 512 * 256).view(512, 256).to(dtype)  # no random numbers are drawn
    start = time.perf_counter()
    values @ values.T
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Rounded:
    """Vectors (m, D) in bf16 with what bounds the error of their products: two lengths a vector, rounded up."""

    values: Tensor  # (m, D) bf16
    length: Tensor  # (m,) of the vector, or of its bf16 form if that is longer
    error: Tensor  # (m,) length of the difference

    @classmethod
    def of(cls, rows: Tensor) -> _Rounded:
        values = rows.bfloat16()
        up = 1 + (rows.shape[1] + 2) * 2.0**-22  # the roundings of a length itself
        lost = 2.0**-62 * rows.shape[1] ** 0.5  # squares below the smallest number vanish
        error = (rows - values).norm(dim=1) * up + lost
        return cls(values, (rows.norm(dim=1) + error) * up + lost, error)


def search_coarse(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Return bounds of the least scores (n,) and their codes (n,) int64, or None where too much stays undecided.

    `rows` (n, D) are centred float32 latents, `table` (K, D) is not centred. None also where values are not finite.
    """
    latents = _Rounded.of(rows)
    ones = latents.values.new_ones(len(rows), 2)
    columns = torch.cat([latents.values, ones], dim=1)  # the last two take up the offsets
    upper = rows.new_full((len(rows),), torch.inf)
    size = min(_TILE_CODES, whole_blocks(len(table)))
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    blocks_left = _MOST_BLOCKS * len(rows)
    for start in range(0, len(table), size):
        codes, offsets = tile_of_codes(table, centre, start, size)
        tile = _Rounded.of(codes)
        weights = torch.cat([-tile.values, _two_pieces(offsets)], dim=1).T
        for row in range(0, len(rows), TILE_ROWS):
            place = slice(row, row + TILE_ROWS)
            scores = (columns[place] @ weights).view(len(rows[place]), -1, BLOCK)
            part = _Rounded(latents.values[place], latents.length[place], latents.error[place])
            found, visited = _candidates(scores, part, tile, offsets, upper[place])
            pairs.append((found[0] + row, found[1] + start, found[2]))
            blocks_left -= visited
            if blocks_left < 0:
                return None
    if not torch.isfinite(upper).all():
        return None
    codes_of_rows = _decide(rows, table, centre, upper, pairs)
    return None if codes_of_rows is None else (upper, codes_of_rows)


def _two_pieces(offsets: Tensor) -> Tensor:
    """Write float32 offsets (k,) as sums of two bf16 numbers, (k, 2), to 2^-16 of their size."""
    high = offsets.bfloat16()
    low = torch.where(high.isinf(), 0, offsets - high).bfloat16()
    return torch.stack([high, low], dim=1)


def _candidates(
    scores: Tensor, latents: _Rounded, tile: _Rounded, offsets: Tensor, upper: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Find the pairs of a tile: rows, codes and least possible scores, each (p,); and the number of blocks looked into.

    `scores` (n, k / 64, 64) bf16. `upper` (n,) is lowered to the greatest possible score of the best code so far.
    """
    sizes = torch.where(offsets.isinf(), 0, offsets)
    per_code = (tile.length, tile.error, sizes)
    per_block = tuple(values.view(-1, BLOCK).amax(dim=1) for values in per_code)
    minima = scores.amin(dim=2).float()  # (n, k / 64)
    error = _bound(minima, latents.length[:, None], latents.error[:, None], *per_block, dim=tile.values.shape[1])
    torch.minimum(upper, (minima + error).amin(dim=1), out=upper)
    row, block = (minima - error <= upper[:, None]).nonzero(as_tuple=True)
    few = scores[row, block].float()  # (m, 64)
    bounds = [values.view(-1, BLOCK)[block] for values in per_code]
    lower = few - _bound(few, latents.length[row, None], latents.error[row, None], *bounds, dim=tile.values.shape[1])
    which, lane = (lower <= upper[row, None]).nonzero(as_tuple=True)
    return (row[which], block[which] * BLOCK + lane, lower[which, lane]), len(row)


def _bound(
    scores: Tensor,
    length: Tensor,
    error: Tensor,
    code_length: Tensor,
    code_error: Tensor,
    offset: Tensor,
    *,
    dim: int,
) -> Tensor:
    """Bound the error of bf16 scores.

    |z.e - z'.e'| <= |z - z'| |e| + |z'| |e - e'| by Cauchy and Schwarz. Then come the sum in float32, the offset in
    two pieces, and the score itself, which is rounded to bf16.
    """
    size = length * code_length + offset
    sums = (4 * dim + 16) * 2.0**-24 * size + 2.0**-15 * offset
    return (error * code_length + length * code_error + sums + 1.02 * _BF16 * scores.abs()) * 1.0001 + _TINY


def _decide(
    rows: Tensor, table: Tensor, centre: Tensor | None, upper: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor | None:
    """Return the code of each latent (n,) out of its candidates, or None where a latent has none."""
    row, code, lower = (torch.cat(values) for values in zip(*pairs, strict=True))
    possible = lower <= upper[row]
    row, code = row[possible], code[possible]
    counts = torch.bincount(row, minlength=len(rows))
    if not counts.all():
        return None
    scores = torch.zeros(len(row), dtype=torch.float64)
    several = (counts[row] > 1).nonzero().squeeze(1)
    for start in range(0, len(several), _PAIRS):
        some = several[start : start + _PAIRS]
        codes = table[code[some]]
        codes = (codes if centre is None else codes - centre).double()  # centred in float32, as everywhere
        products = (rows[row[some]].double() * codes).sum(dim=1)
        scores[some] = -products if centre is None else codes.square().sum(dim=1) / 2 - products
    least = torch.full((len(rows),), torch.inf, dtype=torch.float64).scatter_reduce(0, row, scores, "amin")
    best = scores == least[row]
    return torch.full((len(rows),), len(table)).scatter_reduce(0, row[best], code[best], "amin")
