"""Which images, codes and pairs the costly figures look at, where looking at all would take too much memory or time.

Counts are always of every token. What needs more than O(K) memory is exact up to a limit and beyond it of a part: of
images evenly spaced, of pairs whose first code is among chosen ones, of grids of codes whose hash is small. The part
follows from the set alone, so that it is the same however the work is divided. Pairs are chosen by the first code,
since a chosen code then keeps its pairs, and what follows it is known better than from pairs taken at random. The
chosen ones are the first by a hash among the codes that occur in a pilot, a million codes from all over the set: of a
collapsed codebook that is all it uses.
"""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.entropy import Counts
from imtok.tokens import TokenDataset

PAIRS = 2**23  # counted in each direction, of all codebooks together, about
PLACES = 2**28  # looked through for them, about
CODES = 2**24  # kept for the map and the classes, at most
GRIDS = 2**22  # hashes of whole grids kept, about

_PILOT, _PILOT_UNITS = 2**20, 64  # codes, and units they are spread over
_LEAST_CODES = 512  # whose pairs are counted; where those are more than PAIRS, images are left out
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64 (Steele et al., 2014)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sampling:
    """What is looked at of a token set."""

    map_stride: int  # every so many-th image is kept for the map and the classes
    grid_share: float  # of the grids, those that are compared, in (0, 1]
    pair_stride: int  # every so many-th image has its pairs counted
    paired: Mask | None  # (Q, K) first codes whose pairs are counted; None: all

    @classmethod
    def of(cls, tokens: TokenDataset, *, pairs: int = PAIRS, codes: int = CODES, grids: int = GRIDS) -> Sampling:
        """What the limits allow of this set; raises TokensError where a shard of the pilot cannot be read."""
        height, width = tokens.grid
        places = len(tokens) * height * width
        pairs = max(1, pairs // tokens.num_codebooks)
        paired, share = None, 1.0
        if places > pairs:
            paired, share = _first_codes(_pilot(tokens), pairs / min(places, PLACES))
        return cls(
            map_stride=max(1, math.ceil(places * tokens.num_codebooks / codes)),
            grid_share=min(1.0, grids / max(len(tokens), 1)),
            pair_stride=max(1, math.ceil(places / PLACES), round(places * share / pairs)),
            paired=paired,
        )

    @property
    def all_pairs(self) -> bool:
        """Every pair of the set is counted."""
        return self.paired is None and self.pair_stride == 1

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that decides what is looked at."""
        limits = [self.map_stride, self.grid_share, self.pair_stride]
        paired = b"" if self.paired is None else np.packbits(self.paired).tobytes()
        return hashlib.sha256(repr(limits).encode() + paired).hexdigest()


def _pilot(tokens: TokenDataset) -> Counts:
    """(Q, K): occurrences in codes from all over the set."""
    counts = np.zeros((tokens.num_codebooks, tokens.codebook_size), np.int64)
    places = np.unique(np.linspace(0, len(tokens.units) - 1, _PILOT_UNITS).round().astype(int))
    for place in places.tolist():
        _, shard = tokens.unit(place)
        if not len(shard):  # a tar without images
            continue
        rows = shard.codes.reshape(len(shard), -1)
        step = max(1, math.ceil(rows.size * len(places) / _PILOT))
        each = rows[::step].reshape(-1, tokens.num_codebooks)
        for number in range(tokens.num_codebooks):
            known = each[:, number][each[:, number] < tokens.codebook_size]  # others are told by the count itself
            counts[number] += np.bincount(known, minlength=tokens.codebook_size)
    return counts


def _first_codes(pilot: Counts, share: float) -> tuple[Mask, float]:
    """Codes chosen of each codebook, (Q, K), and the share of the tokens they have where that is greatest.

    They have `share` of the tokens or more, and are 512 at least where so many occur.
    """
    hashes = mixed(np.arange(pilot.shape[1], dtype=np.uint64))
    paired, greatest = np.zeros(pilot.shape, bool), 0.0
    for number, counts in enumerate(pilot):
        occurring = np.flatnonzero(counts)
        if not len(occurring):  # all units of the pilot are empty
            paired[number], greatest = chosen(hashes, share), max(greatest, share)
            continue
        occurring = occurring[np.argsort(hashes[occurring])]
        masses = np.cumsum(counts[occurring]) / counts.sum()
        last = min(len(occurring), max(_LEAST_CODES, int(np.searchsorted(masses, share)) + 1)) - 1
        paired[number] = hashes <= hashes[occurring[last]]  # and of those that the pilot missed the same share
        greatest = max(greatest, float(masses[last]))
    return paired, greatest


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
