"""Which images, codes and pairs the costly figures look at, where looking at all would take too much memory or time.

Counts are always of every token. What needs more than O(K) memory is exact up to a limit and beyond it of a part: of
images evenly spaced, of pairs whose first code's hash is small, of grids of codes whose hash is small. The part follows
from the size of the whole set alone, so that it is the same however the work is divided. Codes are chosen by hash
because a chosen code then keeps all its pairs: what follows it is known as well as in the whole.
"""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imtok.tokens import TokenDataset

PAIRS = 2**23  # counted in each direction of a codebook, about
CODES = 2**24  # kept for the map and the classes, at most
GRIDS = 2**22  # hashes of whole grids kept, about
_LEAST_CODES = 512  # whose pairs are looked at; where there are more pairs of them than PAIRS, images are left out

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64 (Steele et al., 2014)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Sampling:
    """What is looked at of a token set."""

    map_stride: int  # every so many-th image is kept for the map and the classes
    pair_stride: int  # every so many-th image has its pairs counted
    pair_share: float  # of the codes, those whose pairs are counted, in (0, 1]
    grid_share: float  # of the grids, those that are compared, in (0, 1]

    @classmethod
    def of(cls, tokens: TokenDataset, *, pairs: int = PAIRS, codes: int = CODES, grids: int = GRIDS) -> Sampling:
        """What the limits allow of this set."""
        height, width = tokens.grid
        places = len(tokens) * height * width
        share = min(1.0, max(pairs / max(places, 1), _LEAST_CODES / tokens.codebook_size))
        return cls(
            map_stride=max(1, math.ceil(places * tokens.num_codebooks / codes)),
            pair_stride=max(1, math.ceil(places * share / pairs)),
            pair_share=share,
            grid_share=min(1.0, grids / max(len(tokens), 1)),
        )

    def paired_codes(self, codebook_size: int) -> npt.NDArray[np.bool_] | None:
        """(K,) which codes' pairs are counted; None for all."""
        if self.pair_share >= 1:
            return None
        return chosen(mixed(np.arange(codebook_size, dtype=np.uint64)), self.pair_share)


def chosen(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which hashes are among the given share of all there could be."""
    if share >= 1:
        return np.ones(hashes.shape, bool)
    return hashes < np.uint64(int(share * 2**64))


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A hash of each number, the same on every machine: the output function of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        values = (values + _GOLDEN).astype(np.uint64)
        values = (values ^ (values >> np.uint64(30))) * _MIX[0]
        values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def grid_hashes(codes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint64]:
    """A hash of each image's codes: (N, ...) of u8, u16 or u32 -> (N,).

    Two different grids agree with a probability of about 2^-64.
    """
    rows = np.ascontiguousarray(codes).reshape(len(codes), -1).view(np.uint8)  # (N, bytes)
    spare = -rows.shape[1] % 8
    if spare:
        rows = np.pad(rows, ((0, 0), (0, spare)))
    words = rows.view("<u8")
    weights = mixed(np.arange(words.shape[1], dtype=np.uint64)) | np.uint64(1)
    high = (words >> np.uint64(32)) * mixed(weights)  # the upper half by itself, lest its bits fall off the product
    return mixed(((words * weights) ^ high).sum(axis=1, dtype=np.uint64))
