"""Geometry of a codebook in the space of the latents: norms, nearest other codes, effective rank, a map.

The vector of a code is the result of `lookup`: projected for a projected codebook, of unit length for a cosine one. The
scale of a residual stage is left out, because one codebook may serve several stages. Everything is computed in float64,
and distances in tiles without a K x K table. In a large codebook, evenly spaced codes search their nearest among all.
"""

# Axes: K codes, D channels of a code, n codes whose nearest other code is searched.

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from imtok.analysis.statistics import Geometry, Histogram
from imtok.entropy import Counts, Floats
from imtok.quantizers import Quantizer

MOST_SOUGHT = 16_384  # codes whose nearest other code is searched
MOST_PAIRS = 2**31  # distances in all, enough for 8192 of 262,144 codes, or for 128 of 2^24
MOST_POINTS = 2048  # codes on the map
_NEAR = 0.01  # of the root mean square distance from the mean
_BINS = 40
_CHUNK = 65_536  # codes looked up at once
_ROWS, _COLUMNS = 512, 4096  # of a tile of distances: 16 MB


def distinct_codebooks(quantizer: Quantizer) -> list[tuple[Quantizer, list[int]]]:
    """Return the base quantizers in the order of their first use, each with the indices of its codebooks.

    Several stages or heads may share one.
    """
    found: dict[Quantizer, list[int]] = {}
    for index, base in enumerate(quantizer.base_quantizers):
        found.setdefault(base, []).append(index)
    return list(found.items())


@torch.no_grad()
def code_vectors(base: Quantizer) -> Tensor:
    """Look up every code of a base quantizer: (K, D) float, on the CPU."""
    device = next(base.buffers()).device
    chunks = torch.split(torch.arange(base.num_codes, device=device), _CHUNK)
    return torch.cat([base.lookup(codes.view(1, 1, -1))[0, :, 0].T.cpu() for codes in chunks])


def codebook_geometry(vectors: Tensor, counts: Counts, *, codebook: int, fixed: bool) -> Geometry:
    """Measure codes (K, D) float, with (K,) how often each is used.

    At most `MOST_SOUGHT` evenly spaced codes search their nearest other code, with at most `MOST_PAIRS` distances. The
    map shows at most `MOST_POINTS` codes: one half are the most used ones, the others are evenly spaced. The distance
    of a single code is 0, and so is the rank of equal codes or of codes never used.
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
    """Return at most `most` indices of a list of `number` items, evenly spaced from the first on, as int64."""
    count = min(number, most)
    return np.arange(count, dtype=np.int64) * number // max(count, 1)


def effective_rank(vectors: Tensor, weights: Tensor | None = None) -> float:
    """Return exp of the entropy of the normalised singular values about the mean: (K, D), (K,) -> in [0, D].

    After Roy & Vetterli (2007), with each row counted `weights` times. The singular values are square roots of the
    eigenvalues of the covariance, so that nothing larger than D x D is decomposed.
    """
    eigenvalues = torch.linalg.eigvalsh(_covariance(vectors.double(), weights)).clamp(min=0)
    # Rounding leaves 1e-16 of a direction without extent, which would count by its square root, 1e-8 of the largest.
    singular = torch.where(eigenvalues > 1e-12 * eigenvalues.max(), eigenvalues, 0).sqrt()
    if not singular.any():
        return 0.0
    shares = singular / singular.sum()
    return min(float(torch.special.entr(shares).sum().exp()), float(len(shares)))  # rounding may pass it


def _nearest_distances(points: Tensor, sought: Counts) -> Tensor:
    """Return distances to the nearest other point: (K, D) about the mean, (n,) indices -> (n,); (0,) where K is 1."""
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
        # From the difference, because the score has lost the digits of a small distance.
        found.append((points[rows] - points[nearest]).norm(dim=1))
    return torch.cat(found)


def _covariance(points: Tensor, weights: Tensor | None) -> Tensor:
    """Return the covariance: (K, D), (K,) counts or None for equal ones -> (D, D); zeros where all counts are 0."""
    if weights is None:
        weights = points.new_ones(len(points))
    shares = (weights / weights.sum().clamp(min=1)).to(points.dtype).unsqueeze(1)
    centred = points - (shares * points).sum(dim=0)
    return (shares * centred).T @ centred


def _on_main_axes(centred: Tensor) -> Tensor:
    """Project on the two main axes (Pearson, 1901): (K, D) about the mean -> (K, 2), the second 0 where D is 1."""
    axes = torch.linalg.eigh(_covariance(centred, None)).eigenvectors.flip(1)[:, :2]  # (D, 2), the largest first
    largest = axes.abs().argmax(dim=0, keepdim=True)
    axes = axes * axes.gather(0, largest).sign()  # the sign of an eigenvector is arbitrary
    return torch.nn.functional.pad(centred @ axes, (0, 2 - axes.shape[1]))


def _points_shown(counts: Counts) -> Counts:
    """Choose the codes on the map, ascending."""
    if len(counts) <= MOST_POINTS:
        return np.arange(len(counts))
    by_use = np.argsort(-counts, kind="stable")
    most, others = by_use[: MOST_POINTS // 2], np.sort(by_use[MOST_POINTS // 2 :])
    rest = others[evenly_spaced(len(others), MOST_POINTS - len(most))]
    return np.sort(np.concatenate([most, rest]))


def _histogram(values: Floats) -> Histogram:
    """Count in 40 bins from least to greatest; values that differ by rounding alone are one bar in the middle."""
    if not len(values):
        return Histogram(edges=np.linspace(0, 1, _BINS + 1).tolist(), counts=[0] * _BINS)
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * high:
        width = low / 400 if low > 0 else 1 / _BINS  # no bin ends at the value itself
        low = max(low - 20.5 * width, 0.0)
        high = low + _BINS * width
    found, edges = np.histogram(values, bins=_BINS, range=(low, high))
    return Histogram(edges=edges.tolist(), counts=found.tolist())
