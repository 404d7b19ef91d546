"""Random permutations as functions: the place of one number is computed, and nothing of the others is stored.

A Feistel network permutes the numbers of 2b bits, the fewest that hold the range (Luby and Rackoff, 1988, "How to
Construct Pseudorandom Permutations from Pseudorandom Functions"). A number that leaves the range is permuted again
until it is back, which keeps the function one to one (Black and Rogaway, 2002, "Ciphers with Arbitrary Finite
Domains", cycle walking). Integers alone are used, so that the order is the same on every machine and in every version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_ROUNDS = 8
_LARGEST = 2**62

# Constants of the mixing function of SplitMix64 (Steele, Lea and Flood, 2014, "Fast Splittable Pseudorandom Number
# Generators", figure 17).
_STEP, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Permutation:
    """A random permutation of 0 .. count-1, chosen by `numbers` such as (seed, epoch)."""

    def __init__(self, count: int, *numbers: int) -> None:
        if not 0 <= count <= _LARGEST:
            raise ValueError(f"a permutation of {count} numbers: expected 0 to 2^62")
        self.count = count
        self._half = np.uint64(max(1, -(-(max(count, 2) - 1).bit_length() // 2)))  # bits of each half
        self._mask = (np.uint64(1) << self._half) - np.uint64(1)
        key = np.zeros(1, np.uint64)
        for number in numbers:
            key = _mixed(key ^ np.array([number & 2**64 - 1], np.uint64))
        self._keys = [_mixed(key + np.array([each], np.uint64) * _STEP) for each in range(1, _ROUNDS + 1)]

    def __call__(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the images of some numbers in [0, count): int64 of any shape to int64 of the same shape."""
        given = np.asarray(numbers, np.int64)
        if given.size and not 0 <= int(given.min()) <= int(given.max()) < self.count:
            raise ValueError(f"numbers {given.min()} to {given.max()}: expected 0 to {self.count - 1}")
        found = self._permuted(given.astype(np.uint64).ravel())
        outside = np.flatnonzero(found >= self.count)
        while outside.size:
            found[outside] = self._permuted(found[outside])
            outside = outside[found[outside] >= self.count]
        return found.astype(np.int64).reshape(given.shape)

    def _permuted(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & self._mask)
        return left << self._half | right


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix the bits of (n,) uint64 so that each depends on all."""
    mixed = numbers + _STEP
    mixed = (mixed ^ mixed >> np.uint64(30)) * _FIRST
    mixed = (mixed ^ mixed >> np.uint64(27)) * _SECOND
    return mixed ^ mixed >> np.uint64(31)
