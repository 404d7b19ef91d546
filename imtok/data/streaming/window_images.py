"""The images of one window in memory, still encoded, in the order in which they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np

from imtok.data.images import decode_image, resize_shorter
from imtok.data.reading import Reading
from imtok.data.streaming.source import ShardFailure
from imtok.data.streaming.windows import Window, WindowOrder
from imtok.errors import ImageError

EncodedImage = tuple[str, bytes]  # key and bytes


class WindowImages:
    """A fetched window. `failed` has the reasons of its shards that could not be read, by number.

    The images are let go once they are all used: the stream calls `begin` before it hands out positions, `done` after,
    and `end` when no more are to come. `released` is called then.
    """

    def __init__(
        self,
        number: int,
        window: Window,
        order: WindowOrder,
        images: Sequence[EncodedImage],
        failed: Mapping[int, str],
        released: Callable[[], None],
    ) -> None:
        self.number, self.size, self.failed = number, len(images), failed
        self._window, self._order_of_windows = window, order
        self._images, self._order = images, order.images(window, len(images))
        self._released, self._uses, self._ended, self._gone = released, 0, False, False
        self._unreadable: set[int] = set()
        self._lock = Lock()

    def picture(self, position: int, size: int, reading: Reading, unreadable: dict[str, str]) -> np.ndarray:
        """Decode the image at a position, or the next readable one, at shorter side `size`: (H, W, 3) uint8.

        The next one is that of the window's own list, whatever threads came first. Reasons of unreadable images are
        noted in `unreadable` by key.
        """
        first = int(self._order[position])
        for candidate in range(first, first + self.size):
            index = candidate % self.size
            if index in self._unreadable:
                continue
            key, data = self._images[index]
            try:
                return np.asarray(resize_shorter(decode_image(data, reading), size))
            except ImageError as error:
                self._unreadable.add(index)
                unreadable[key] = str(error)
        raise AssertionError("a shard without a readable image is left out of its window")

    def generator(self, position: int) -> np.random.Generator:
        """Return the generator of the crop at a position."""
        return self._order_of_windows.generator(self._window, position)

    def begin(self, uses: int) -> None:
        """Count uses that are to come."""
        with self._lock:
            self._uses += uses

    def done(self) -> None:
        """Count one use as done."""
        self._let_go(uses=1)

    def end(self) -> None:
        """Say that no more uses are to come than those that were counted."""
        self._let_go(ended=True)

    def _let_go(self, *, uses: int = 0, ended: bool = False) -> None:
        with self._lock:
            self._uses -= uses
            self._ended |= ended
            if self._uses or not self._ended or self._gone:
                return
            self._images, self._gone = (), True
        self._released()


def check_readable(name: str, images: Sequence[EncodedImage], reading: Reading) -> None:
    """Raise ShardFailure where none of a shard's images can be read; as a rule one image is decoded.

    A shard may have no images to train on, where all of them are held out.
    """
    reason = ""
    for index, (_, data) in enumerate(images):
        try:
            decode_image(data, reading)
            return
        except ImageError as error:
            if index == 0:
                reason = f"none of its images can be read, the first for this reason: {error}"
    if images:
        raise ShardFailure(name, reason)
