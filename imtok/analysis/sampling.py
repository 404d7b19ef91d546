"""Sampling: the images, codes and pairs that the costly statistics are measured on.

Every token is counted. A statistic that needs more than O(K) memory is exact up to a limit, and beyond it covers a
sample: evenly spaced images, pairs whose first code is among chosen codes, grids of codes whose hash is small. The
sample follows from the set alone, however the work is divided. Pairs are chosen by their first code, because all pairs
of one code say more about the codes that follow it than as many random pairs. The chosen codes have the smallest hashes
among those that occur in a pilot, a million codes from all parts of the set. In a collapsed codebook that includes all
codes in use.
"""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.entropy import Counts
from imtok.tokens import TokenDataset

PAIRS = 2**23  # about so many are counted in each direction, of all codebooks together
POSITIONS = 2**28  # about so many are searched for these pairs
CODES = 2**24  # at most so many are kept for the map and the classes
GRIDS = 2**22  # of about so many the hash is kept

_PILOT, _PILOT_UNITS = 2**20, 64  # codes of the pilot, and the units they are taken from
_LEAST_CODES = 512  # at least so many have their pairs counted; images are left out where these pairs exceed PAIRS
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64 (Steele et al., 2014)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sampling:
    """The sample of a token set."""

    map_stride: int  # of so many images one is kept for the map and the classes
    grid_share: float  # of the grids, those that are compared, in (0, 1]
    pair_stride: int  # of so many images one has its pairs counted
    paired: Mask | None  # (Q, K) first codes whose pairs are counted; None: all

    @classmethod
    def of(cls, tokens: TokenDataset, *, pairs: int = PAIRS, codes: int = CODES, grids: int = GRIDS) -> Sampling:
        """Choose the sample of a set by these limits; raises TokensError where a shard of the pilot is damaged."""
        height, width = tokens.grid
        positions = len(tokens) * height * width
        pairs = max(1, pairs // tokens.num_codebooks)
        paired, share = None, 1.0
        if positions > pairs:
            paired, share = _first_codes(_pilot(tokens), pairs / min(positions, POSITIONS))
        return cls(
            map_stride=max(1, math.ceil(positions * tokens.num_codebooks / codes)),
            grid_share=min(1.0, grids / max(len(tokens), 1)),
            pair_stride=max(1, math.ceil(positions / POSITIONS), round(positions * share / pairs)),
            paired=paired,
        )

    @property
    def all_pairs(self) -> bool:
        """True where every pair of the set is counted."""
        return self.paired is None and self.pair_stride == 1


def _pilot(tokens: TokenDataset) -> Counts:
    """Count the codes of evenly spaced images of evenly spaced units: (Q, K)."""
    counts = np.zeros((tokens.num_codebooks, tokens.codebook_size), np.int64)
    units = np.unique(np.linspace(0, len(tokens.units) - 1, _PILOT_UNITS).round().astype(int))
    for unit in units.tolist():
        _, shard = tokens.unit(unit)
        if not len(shard):  # a tar without images
            continue
        rows = shard.codes.reshape(len(shard), -1)
        step = max(1, math.ceil(rows.size * len(units) / _PILOT))
        each = rows[::step].reshape(-1, tokens.num_codebooks)
        for number in range(tokens.num_codebooks):
            valid = each[:, number][each[:, number] < tokens.codebook_size]  # the count itself reports the others
            counts[number] += np.bincount(valid, minlength=tokens.codebook_size)
    return counts


def _first_codes(pilot: Counts, share: float) -> tuple[Mask, float]:
    """Choose first codes of each codebook: (Q, K), and their share of its tokens, the greatest of all codebooks.

    They make up `share` of the tokens or more, and are at least 512 codes where so many occur.
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
        paired[number] = hashes <= hashes[occurring[last]]  # of the codes that the pilot missed the same share
        greatest = max(greatest, float(masses[last]))
    return paired, greatest


def chosen(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Return which hashes are among the smallest `share` of all possible hashes: (...) -> (...)."""
    if share >= 1:
        return np.ones(hashes.shape, bool)
    return hashes < np.uint64(int(share * 2**64))


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash numbers alike on every machine, by the output function of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        values = (values + _GOLDEN).astype(np.uint64)
        values = (values ^ (values >> np.uint64(30))) * _MIX[0]
        values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def grid_hashes(codes: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.uint64]:
    """Hash the codes of each image, with one random factor for every four bytes: (N, ...) u8, u16 or u32 -> (N,).

    Two different grids have equal hashes with a probability of at most 2^-32, and of about 2^-64 where they differ in
    many codes (Lemire & Kaser, 2014, "Strongly universal string hashing is fast").
    """
    rows = np.ascontiguousarray(codes).reshape(len(codes), -1).view(np.uint8)  # (N, bytes)
    spare = -rows.shape[1] % 4
    if spare:
        rows = np.pad(rows, ((0, 0), (0, spare)))
    words = rows.view("<u4").astype(np.uint64)
    return mixed(words @ mixed(np.arange(words.shape[1], dtype=np.uint64)))
