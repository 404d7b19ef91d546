"""Visualisations: how single codes look, alone and in place, and images beside their reconstructions."""

# Axes: n codes shown, m images, f pixels a side of the patch of a code, S side of an image, h x w grid, Q codebooks,
# K codes.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imtok.entropy import Counts

if TYPE_CHECKING:  # reports load without PyTorch
    from torch import Tensor

    from imtok.analysis.batched_runner import BatchedRunner

Pixels = npt.NDArray[np.uint8]

MOST_SHOWN = 256  # codes
# Codes a side of the grid that is decoded. With 7 the middle pixels of imtok-f8 differ from those of a grid of 31 by 2
# levels of 255 at most, with 3 by 7 levels.
SIDE = 7
_GRAY = 128


@dataclass(frozen=True, eq=False)
class Visualisations:
    """RGB pictures, uint8, channels last, of the most used codes of the first codebook and of images."""

    codes: Counts  # (n,) the most used first
    counts: Counts  # (n,) how often each occurs in the whole set
    swatches: Pixels  # (n, f, f, 3) the middle of a decoded grid full of that code
    patches: Pixels  # (n, f, f, 3) mean pixels where the code occurs, in the images or, without images, in decoded ones
    patch_counts: Counts  # (n,) occurrences in that mean; 0: the patch is gray
    decoded: Pixels  # (m, S, S, 3)
    originals: Pixels | None  # (m, S, S, 3) where images were given
    keys: tuple[str, ...]  # (m,)


def most_used(counts: Counts, most: int = MOST_SHOWN) -> Counts:
    """Return at most so many codes that occur, the most frequent first, equals in their order: (K,) -> (n,)."""
    order = np.argsort(-counts, kind="stable")[:most]
    return order[counts[order] > 0]


def swatches(runner: BatchedRunner, codes: Counts, counts: Counts, side: int = SIDE) -> Pixels:
    """Decode a `side` x `side` grid full of one code and return its middle: (n,), (Q, K) -> (n, f, f, 3).

    The codes belong to the first codebook. Of a residual quantizer only the first stage is decoded. The other heads of
    a product quantizer have the code that they use most everywhere.
    """
    import torch

    f = runner.tokenizer.downsample
    assert f is not None  # the diagnosis refuses codes without places
    if not len(codes):
        return np.empty((0, f, f, 3), np.uint8)
    quantizer = runner.tokenizer.quantizer
    used_most = counts.argmax(axis=1)[: quantizer.least_codebooks]
    grids = torch.from_numpy(used_most).repeat(len(codes), side, side, 1)  # (n, side, side, Q)
    grids[..., 0] = torch.from_numpy(codes)[:, None, None]
    if quantizer.num_codebooks == 1:
        grids = grids[..., 0]
    start = side // 2 * f
    return to_pixels(runner.decode(grids)[..., start : start + f, start : start + f])


def mean_patches(images: Tensor, grids: Tensor, codes: Counts) -> tuple[Pixels, Counts]:
    """Return the mean pixels where each code occurs, and its occurrences; gray where there are none.

    Images (m, 3, S, S) uint8, their codes (m, h, w), codes to show (n,) -> (n, f, f, 3), (n,).
    """
    f = images.shape[2] // grids.shape[1]
    row_of = {code: row for row, code in enumerate(codes.tolist())}
    sums = np.zeros((len(codes), f, f, 3))
    found = np.zeros(len(codes), np.int64)
    for image, grid in zip(images.numpy(), grids.numpy(), strict=True):
        patches = image.reshape(3, grid.shape[0], f, grid.shape[1], f).transpose(1, 3, 2, 4, 0)  # (h, w, f, f, 3)
        rows = np.array([row_of.get(code, -1) for code in grid.ravel().tolist()])
        shown = rows >= 0
        np.add.at(sums, rows[shown], patches.reshape(-1, f, f, 3)[shown])
        np.add.at(found, rows[shown], 1)
    means = np.where(found[:, None, None, None] > 0, sums / np.maximum(found, 1)[:, None, None, None], _GRAY)
    return means.round().astype(np.uint8), found


def to_pixels(images: Tensor) -> Pixels:
    """Move the channels last, as files and pages have them: (n, 3, H, W) uint8 -> (n, H, W, 3)."""
    return images.permute(0, 2, 3, 1).contiguous().numpy()
