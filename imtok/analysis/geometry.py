"""How the codes of a codebook lie in the space of the latents: lengths, nearest others, effective rank, a map.

A code's vector is what its quantizer's `lookup` gives, so a projected codebook is seen projected and a cosine one at
unit length; the scale of a residual stage is left out, since one table may serve several stages. Everything is
computed in float64, distances in tiles, so that no K x K table is held. Where codes are many, the nearest other is
sought for evenly spaced ones alone, but among all.
"""

# Axes: K codes, D channels of a code, n codes whose nearest other is sought.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imtok.analysis.statistics import Geometry, Histogram
from imtok.entropy import Counts
from imtok.quantizers import Quantizer

MOST_SOUGHT = 16_384  # codes whose nearest other is sought
MOST_PAIRS = 2**31  # distances taken in all: of 262,144 codes 8192 are sought, of 2^24 128
MOST_POINTS = 2048  # codes on the map
_NEAR = 0.01  # of the root mean square distance from the mean
_BINS = 40
_CHUNK = 65_536  # codes looked up at once
_ROWS, _COLUMNS = 512, 4096  # of a tile of distances: 16 MB

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CodeTable:
    """A table of codes, and which of the Q codebooks it stands behind: a shared one serves several."""

    codebooks: tuple[int, ...]
    base: Quantizer

    @property
    def fixed(self) -> bool:
        """The codes lie where the method puts them: FSQ, LFQ and BSQ have no tensors that decide."""
        return not self.base.code_tensors()

    @torch.no_grad()
    def vectors(self) -> Tensor:
        """Every code as `lookup` gives it: (K, D) float, on the CPU."""
        device = next(self.base.buffers()).device
        chunks = torch.split(torch.arange(self.base.num_codes, device=device), _CHUNK)
        return torch.cat([self.base.lookup(codes.view(1, 1, -1))[0, :, 0].T.cpu() for codes in chunks])


def code_tables(quantizer: Quantizer) -> list[CodeTable]:
    """The different tables of a quantizer, in the order of the codebooks they first stand behind."""
    tables: dict[int, CodeTable] = {}
    for codebook, base in enumerate(quantizer.base_quantizers):
        before = tables[id(base)].codebooks if id(base) in tables else ()
        tables[id(base)] = CodeTable((*before, codebook), base)
    return list(tables.values())


def codebook_geometry(vectors: Tensor, counts: Counts, *, codebook: int, fixed: bool) -> Geometry:
    """How codes (K, D) float lie, with (K,) how often each is used.

    The nearest other is sought for at most `MOST_SOUGHT` evenly spaced codes, and for fewer where that would take more
    than `MOST_PAIRS` distances. On the map are all codes up to `MOST_POINTS`; of more, the most used ones are half of
    the points and evenly spaced others the rest. A figure of nothing is 0: distances of a single code, the rank of
    equal codes or of codes never used.
    """
    points = vectors.double()
    centred = points - points.mean(dim=0)
    spread = math.sqrt(float(centred.square().sum(dim=1).mean()))
    sought = evenly_spaced(len(points), min(MOST_SOUGHT, MOST_PAIRS // len(points)))
    distances = _nearest_distances(centred, sought).numpy()
    norms = points.norm(dim=1).numpy()
    shown = _points_shown(counts)
    return Geometry(
        codebook=codebook,
        fixed=fixed,
        codes=len(distances) or len(points),
        dim=points.shape[1],
        mean_norm=float(norms.mean()),
        norms=_histogram(norms),
        median_distance=float(np.median(distances)) if len(distances) else 0.0,
        distances=_histogram(distances),
        near_duplicates=int((distances <= _NEAR * spread).sum()),
        effective_rank=effective_rank(points),
        effective_rank_used=effective_rank(points, torch.from_numpy(counts)),
        points=[(float(x), float(y)) for x, y in _on_main_axes(centred)[torch.from_numpy(shown)]],
        point_codes=shown.tolist(),
        point_counts=counts[shown].tolist(),
    )


def evenly_spaced(number: int, most: int) -> Counts:
    """At most `most` places of a list of `number`, evenly spaced from the first on, as int64."""
    count = min(number, most)
    return np.arange(count, dtype=np.int64) * number // max(count, 1)


def effective_rank(vectors: Tensor, weights: Tensor | None = None) -> float:
    """exp of the entropy of the normalised singular values about the mean: (K, D), (K,) -> in [0, D].

    After Roy & Vetterli (2007), with each row counted `weights` times. The singular values are square roots of the
    covariance's eigenvalues, so that nothing larger than D x D is decomposed.
    """
    eigenvalues = torch.linalg.eigvalsh(_covariance(vectors.double(), weights)).clamp(min=0)
    # What rounding leaves of a direction without extent would count by its square root, 1e-8 of the largest.
    singular = torch.where(eigenvalues > 1e-12 * eigenvalues.max(), eigenvalues, 0).sqrt()
    if not singular.any():
        return 0.0
    shares = singular / singular.sum()
    return min(float(torch.special.entr(shares).sum().exp()), float(len(shares)))  # rounding may pass it


def _nearest_distances(points: Tensor, sought: Counts) -> Tensor:
    """Distance of some points to their nearest other: (K, D) about their mean, (n,) -> (n,); (0,) where K is 1."""
    if len(points) == 1:
        return points.new_empty(0)
    half_norms = points.square().sum(dim=1) / 2  # (K,)
    found = []
    for rows in torch.split(torch.from_numpy(sought), _ROWS):
        best = points.new_full((len(rows),), math.inf)
        nearest = torch.zeros_like(rows)
        for start in range(0, len(points), _COLUMNS):
            scores = half_norms[start : start + _COLUMNS] - points[rows] @ points[start : start + _COLUMNS].T
            own = torch.nonzero((rows >= start) & (rows < start + _COLUMNS)).view(-1)
            scores[own, rows[own] - start] = math.inf
            least, place = scores.min(dim=1)
            nearest = torch.where(least < best, place + start, nearest)
            best = torch.minimum(best, least)
        # Of the difference, since what is left of the score has lost the digits of a small distance.
        found.append((points[rows] - points[nearest]).norm(dim=1))
    return torch.cat(found)


def _covariance(points: Tensor, weights: Tensor | None) -> Tensor:
    """(K, D), (K,) counts or None for equal ones -> (D, D) about the mean; zeros where all counts are."""
    if weights is None:
        weights = points.new_ones(len(points))
    shares = (weights / weights.sum().clamp(min=1)).to(points.dtype).unsqueeze(1)
    centred = points - (shares * points).sum(dim=0)
    return (shares * centred).T @ centred


def _on_main_axes(centred: Tensor) -> Tensor:
    """(K, D) about the mean -> (K, 2) on the two main axes (Pearson, 1901), the second 0 where D is 1."""
    axes = torch.linalg.eigh(_covariance(centred, None)).eigenvectors.flip(1)[:, :2]  # (D, 2), the largest first
    largest = axes.abs().argmax(dim=0, keepdim=True)
    axes = axes * axes.gather(0, largest).sign()  # an axis has no direction of its own
    return torch.nn.functional.pad(centred @ axes, (0, 2 - axes.shape[1]))


def _points_shown(counts: Counts) -> Counts:
    """Which codes the map shows, ascending."""
    if len(counts) <= MOST_POINTS:
        return np.arange(len(counts))
    by_use = np.argsort(-counts, kind="stable")
    most, others = by_use[: MOST_POINTS // 2], np.sort(by_use[MOST_POINTS // 2 :])
    rest = others[evenly_spaced(len(others), MOST_POINTS - len(most))]
    return np.sort(np.concatenate([most, rest]))


def _histogram(values: _Floats) -> Histogram:
    """40 bins from the least to the greatest; values equal but for rounding are one bar in the middle."""
    if not len(values):
        return Histogram(edges=np.linspace(0, 1, _BINS + 1).tolist(), counts=[0] * _BINS)
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * high:
        width = low / 400 if low > 0 else 1 / _BINS  # no bin ends at the value itself
        low = max(low - 20.5 * width, 0.0)
        high = low + _BINS * width
    found, edges = np.histogram(values, bins=_BINS, range=(low, high))
    return Histogram(edges=edges.tolist(), counts=found.tolist())
