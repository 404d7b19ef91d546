"""The endless sequence of windows: each epoch is a permutation of the shards, cut into runs of `width` shards.

All is a function of (seed, number), so nothing is remembered but a place in the sequence.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

# What is drawn: no two draws of a run share their numbers.
_SHARDS, _IMAGES, _CROP = 1, 2, 3


class Window(NamedTuple):
    """A window of the sequence: its epoch, its number in the epoch, and its shards in order."""

    epoch: int
    number: int
    shards: tuple[int, ...]


class WindowOrder:
    """Windows by their numbers in the sequence, for `shards` shards and windows of `width` of them.

    The last window of an epoch has the shards that remain, which may be fewer.
    """

    def __init__(self, shards: int, width: int, seed: int) -> None:
        if shards < 1 or width < 1:
            raise ValueError(f"{shards} shards in windows of {width}: both must be at least 1")
        self.shards, self.width, self.seed = shards, width, seed
        self.per_epoch = -(-shards // width)
        self._epoch_order = lru_cache(maxsize=4)(self._draw_epoch)  # ranks are in few epochs at once

    def window(self, number: int) -> Window:
        """Return the `number`-th window of the sequence."""
        epoch, position = divmod(number, self.per_epoch)
        shards = self._epoch_order(epoch)[position * self.width : (position + 1) * self.width]
        return Window(epoch, position, tuple(shards.tolist()))

    def images(self, window: Window, count: int) -> np.ndarray:
        """Draw the order in which a window's `count` images are used: (count,) int64."""
        return permutation(count, (_IMAGES, self.seed, window.epoch, window.number))

    def generator(self, window: Window, position: int) -> np.random.Generator:
        """Return the generator that draws the crop of the image at `position` of a window's order."""
        return np.random.default_rng((_CROP, self.seed, window.epoch, window.number, position))

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        return permutation(self.shards, (_SHARDS, self.seed, epoch))


def permutation(count: int, numbers: tuple[int, ...]) -> np.ndarray:
    """Draw a permutation as a function of `numbers` alone: (count,) int64.

    NumPy promises the raw numbers of its generators for all versions, but not what `Generator.permutation` makes of
    them. A place in a checkpoint must outlive an upgrade.
    """
    return np.argsort(np.random.PCG64(numbers).random_raw(count), kind="stable")
