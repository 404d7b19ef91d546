"""Which images, codes and pairs the costly figures look at, where looking at all would take too much memory or time.

Counts are always of every token. What needs more than O(K) memory is exact up to a limit and beyond it of a part: of
images evenly spaced, of pairs whose first code's hash is small, of grids of codes whose hash is small. The part follows
from the size of the whole set alone, so that it is the same however the work is divided. Pairs are chosen by the first
code, since a chosen code then keeps its pairs and what follows it is known better than from pairs taken at random.
"""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.tokens import TokenDataset

PAIRS = 2**23  # counted in each direction of a codebook, about
PLACES = 2**28  # looked through for them, about
CODES = 2**24  # kept for the map and the classes, at most
GRIDS = 2**22  # hashes of whole grids kept, about
_LEAST_CODES = 512  # whose pairs are counted; where those are more than PAIRS, images are left out

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64 (Steele et al., 2014)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


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
        looked_at = max(1, min(places, PLACES))
        share = min(1.0, max(pairs / looked_at, _LEAST_CODES / tokens.codebook_size))
        return cls(
            map_stride=max(1, math.ceil(places * tokens.num_codebooks / codes)),
            pair_stride=max(1, math.ceil(places / PLACES), math.ceil(places * share / pairs)),
            pair_share=share,
            grid_share=min(1.0, grids / max(len(tokens), 1)),
        )

    def is_paired(self, codes: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.bool_]:
        """Which codes are among those whose pairs are counted: of any shape, u8, u16 or u32.

        Fibonacci's hash (Knuth, 1973, 6.4) in the codes' own type, as a gather from a table would take ten times as
        long.
        """
        if self.pair_share >= 1:
            return np.ones(codes.shape, bool)
        kind = codes.dtype.type
        numbers = 2 ** (8 * codes.dtype.itemsize)
        factor = kind(round(numbers / _GOLDEN_RATIO) | 1)
        return codes * factor < kind(int(self.pair_share * numbers))


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


def grid_hashes(codes: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.uint64]:
    """A hash of each image's codes: (N, ...) of u8, u16 or u32 -> (N,), by one random factor for every four bytes.

    Two different grids agree with a probability of 2^-32 at most, and of about 2^-64 where they have little in common
    (Lemire & Kaser, 2014, "Strongly universal string hashing is fast").
    """
    rows = np.ascontiguousarray(codes).reshape(len(codes), -1).view(np.uint8)  # (N, bytes)
    spare = -rows.shape[1] % 4
    if spare:
        rows = np.pad(rows, ((0, 0), (0, spare)))
    words = rows.view("<u4").astype(np.uint64)
    return mixed(words @ mixed(np.arange(words.shape[1], dtype=np.uint64)))
