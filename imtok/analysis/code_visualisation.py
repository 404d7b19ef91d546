"""What codes look like: each alone through the decoder, and the mean of the pixels where it stands."""

# Axes: n codes shown, m images, f pixels a side of a code's patch, h x w latent grid, Q codebooks, K codes.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.visualisations import Pixels
from imtok.entropy import Counts
from imtok.quantizers import ResidualQuantizer

MOST_SHOWN = 256
SIDE = 7  # of imtok-f8 the middle is then 2 levels of 255 from that of a grid of 31, of one of 3 it is 7
_GRAY = 128


def most_used(counts: Counts, most: int = MOST_SHOWN) -> Counts:
    """At most so many codes that occur, the most frequent first, equals in their order: (K,) -> (n,)."""
    order = np.argsort(-counts, kind="stable")[:most]
    return order[counts[order] > 0]


def swatches(runner: BatchedRunner, codes: Counts, counts: Counts, side: int = SIDE) -> Pixels:
    """The middle f x f pixels of what a `side` x `side` grid full of one code decodes to: (n,), (Q, K) -> (n, f, f, 3).

    Codes are those of the first codebook. Of a residual quantizer the first stage is decoded alone; other codebooks
    beside the first, the heads of a product, have the code they use most everywhere.
    """
    f = runner.tokenizer.downsample
    if not len(codes):
        return np.empty((0, f, f, 3), np.uint8)
    quantizer = runner.tokenizer.quantizer
    decoded = quantizer.uses[0].num_codebooks if isinstance(quantizer, ResidualQuantizer) else quantizer.num_codebooks
    grids = torch.from_numpy(counts.argmax(axis=1)[:decoded]).repeat(len(codes), side, side, 1)  # (n, side, side, Q)
    grids[..., 0] = torch.from_numpy(codes)[:, None, None]
    if quantizer.num_codebooks == 1:
        grids = grids[..., 0]
    start = side // 2 * f
    return to_pixels(runner.decode(grids)[..., start : start + f, start : start + f])


def mean_patches(images: Tensor, grids: Tensor, codes: Counts) -> tuple[Pixels, Counts]:
    """Mean pixels where a code stands, and of how many places; gray where of none.

    Images (m, 3, S, S) uint8, their codes (m, h, w), those to show (n,) -> (n, f, f, 3), (n,).
    """
    f = images.shape[2] // grids.shape[1]
    place = {code: number for number, code in enumerate(codes.tolist())}
    sums = np.zeros((len(codes), f, f, 3))
    found = np.zeros(len(codes), np.int64)
    for image, grid in zip(images.numpy(), grids.numpy(), strict=True):
        cut = image.reshape(3, grid.shape[0], f, grid.shape[1], f).transpose(1, 3, 2, 4, 0)  # (h, w, f, f, 3)
        rows = np.array([place.get(code, -1) for code in grid.ravel().tolist()])
        shown = rows >= 0
        np.add.at(sums, rows[shown], cut.reshape(-1, f, f, 3)[shown])
        np.add.at(found, rows[shown], 1)
    means = np.where(found[:, None, None, None] > 0, sums / np.maximum(found, 1)[:, None, None, None], _GRAY)
    return means.round().astype(np.uint8), found


def to_pixels(images: Tensor) -> Pixels:
    """(n, 3, H, W) uint8 -> (n, H, W, 3), as files and pages have it."""
    return images.permute(0, 2, 3, 1).contiguous().numpy()
