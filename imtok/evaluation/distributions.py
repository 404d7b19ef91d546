"""Metrics of two sets of features as distributions: Frechet distance, and precision and recall.

Both read the features of all images, in their order, on the CPU. Sums are taken in float64 over blocks of a fixed
number of rows, each on one core, and added in order. So the number is the same to the bit for any number of cores,
processes and parts in which the features came: running sums, as other programs keep them, would depend on where the
parts end. 50,000 images have 400 MB of features a side. The distance adds about 300 MB on two cores, 600 MB on many;
precision and recall need the features once more, joined.
"""

# Axes: N and M images, D features.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from imtok.cores import usable_cores
from imtok.parallel import in_order

_BLOCK = 1024  # rows
_MOST_WORKERS = 8  # each holds two sums of (D, D), 32 MB for Inception's features
_TILE = 4096  # rows that a block is compared with at once


class Gaussian(NamedTuple):
    """The normal law that features are taken for."""

    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64, unbiased


def gaussian_of(batches: Iterable[Tensor]) -> Gaussian:
    """Return mean and covariance of features (n, D) that come in batches, two rows or more in all.

    The mean is taken first and subtracted before anything is squared, as large means would cost digits otherwise.
    """
    batches = list(batches)
    count = sum(map(len, batches))
    workers = min(usable_cores(), _MOST_WORKERS)
    sums = in_order(lambda block: block.sum(dim=0), _blocks(batches), workers=workers, ahead=workers)
    mean = _added(sums) / count

    def product(block: Tensor) -> Tensor:
        centred = block - mean
        return centred.T @ centred

    products = in_order(product, _blocks(batches), workers=workers, ahead=workers)
    return Gaussian(mean, _added(products) / (count - 1))


def _added(parts: Iterable[Tensor]) -> Tensor:
    iterator = iter(parts)
    total = next(iterator)
    for part in iterator:
        total += part
    return total


def _blocks(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Cut features into blocks of 1,024 rows, float64, wherever the batches end."""
    for block in rows_in_blocks(batches, _BLOCK):
        yield block.double()


def rows_in_blocks(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the rows of batches (n, D) in blocks of `size`, the last one shorter, without joining them all."""
    held: list[Tensor] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        while rows >= size:
            joined = torch.cat(held)
            yield joined[:size]
            held, rows = [joined[size:]], rows - size
    if rows:
        yield torch.cat(held)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0 (Dowson & Landau, 1982; Heusel et al., 2017).

    With C = R R^T on both sides the trace of (C1 C2)^(1/2) is the sum of the singular values of R1^T R2. Others take
    the roots of the eigenvalues of C1 C2. Roots enlarge rounding: an eigenvalue of 0 that comes out as 1e-16 adds 1e-8,
    and each missing image of a small set has such an eigenvalue.
    """
    difference = first.mean - second.mean

    def trace_of_root(covariances: tuple[Tensor, Tensor]) -> float:
        one, two = map(_root, covariances)
        return float(torch.linalg.svdvals(one.T @ two).sum())

    (trace,) = in_order(trace_of_root, [(first.covariance, second.covariance)], workers=1, ahead=0)
    spread = first.covariance.trace() + second.covariance.trace() - 2 * trace
    return max(0.0, float(difference @ difference + spread))


def _root(covariance: Tensor) -> Tensor:
    """Return R with R R^T = C, (D, rank), without the directions in which C is 0 to rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp_min(0)
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def share_inside(queries: Tensor, centres: Tensor, *, neighbours: int = 3) -> float:
    """Return the share of queries (N, D) that lie in the manifold of centres (M, D), both float32 on one device.

    The manifold is the union of balls around the centres; each reaches to the `neighbours`-th nearest other centre
    (Kynkaanniemi et al., 2019). It is torch-fidelity's arithmetic, by tiles of fixed sizes: nothing of size N M is
    held. Precision has reconstructions as queries and originals as centres, recall the reverse.
    """
    radii = _neighbour_distances(centres, neighbours)
    inside = _by_rows(queries, lambda rows: _is_inside(rows, centres, radii))
    return float(inside.double().mean())


def _neighbour_distances(features: Tensor, neighbours: int) -> Tensor:
    """Return the distance to the n-th nearest other row: (M, D) -> (M,). A row is the nearest to itself."""

    def of_rows(rows: Tensor) -> Tensor:
        nearest = rows.new_empty(len(rows), 0)
        for tile in torch.split(features, _TILE):
            distances = torch.cat([nearest, torch.cdist(rows, tile)], dim=1)
            nearest = distances.topk(min(neighbours + 1, distances.shape[1]), largest=False).values
        return nearest.amax(dim=1)

    return _by_rows(features, of_rows)


def _is_inside(rows: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    found = rows.new_zeros(len(rows), dtype=torch.bool)
    for tile, reach in zip(torch.split(centres, _TILE), torch.split(radii, _TILE), strict=True):
        found |= (torch.cdist(rows, tile) <= reach).any(dim=1)
    return found


def _by_rows(features: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of rows to blocks of 1,024, on all cores of a CPU with one core for each block."""
    workers = usable_cores() if features.device.type == "cpu" else 1
    return torch.cat(list(in_order(function, torch.split(features, _BLOCK), workers=workers, ahead=workers)))
