"""The inputs of a call, from which those that a token folder has recorded are taken by name.

Both lists are in the byte order of keys, so nearly every recorded image is the next one of the call. What is taken is
a mark in an array, since a dictionary of ten million images would fill gigabytes.
"""

# Axes: N images of the call.

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import cast

import numpy as np

from imtok.data.archives.packed import packed
from imtok.data.chosen_images import choose, choose_marked
from imtok.data.containers import ImageFile, LostImage
from imtok.data.packed_images import PackedImages
from imtok.data.sources import ContainerFile
from imtok.encoding.inputs import PlanPart
from imtok.tokens.plan import PlanEntry

_NEAR = 4  # keys that are compared before a search
_BLOCK = 4096  # keys that are unpacked at once

Images = PackedImages[ImageFile | LostImage]


class Inputs:
    """The inputs of a call by name, from which recorded ones are taken."""

    def __init__(self, found: PlanPart) -> None:
        self._images = cast(Images, packed(found.files))
        self._keys = self._images.keys
        self._sizes = np.ascontiguousarray(self._images.sizes).data  # gives single numbers sooner than an array
        self._taken = bytearray(len(self._images))  # (N,) 1 where an image is taken
        self._next = 0  # the image after the one that was taken last
        self._first, self._block = 0, list[bytes]()  # some keys around it, from the first position on
        self._containers = {file.name: file for file in found.containers}

    def take_image(self, key: bytes) -> int | None:
        """Take the image of this key; return its position, None where there is none that is not taken."""
        position: int | None = self._next
        place = self._next - self._first
        if not (0 <= place < len(self._block) and self._block[place] == key):
            position = self._find(key)
        if position is None or self._taken[position]:
            return None
        self._taken[position] = True
        self._next = position + 1
        return position

    def _find(self, key: bytes) -> int | None:
        """Return the position of a key, which mostly is the next one or follows a few new ones."""
        for position in range(self._next, min(self._next + _NEAR, len(self._keys))):
            if not 0 <= position - self._first < len(self._block):
                self._first = position
                self._block = self._keys.encoded_at(np.arange(position, min(position + _BLOCK, len(self._keys))))
            if self._block[position - self._first] == key:
                return position
        position = bisect_left(range(len(self._keys)), key, key=self._keys.encoded)
        return position if position < len(self._keys) and self._keys.encoded(position) == key else None

    def size(self, position: int) -> int:
        """Return the bytes of an image."""
        return int(self._sizes[position])

    def take_container(self, name: str) -> ContainerFile | None:
        """Take the container of this name, None where there is none that is not taken."""
        return self._containers.pop(name, None)

    @property
    def images_left(self) -> bool:
        """Whether there are images in folders that no recorded input matches."""
        return 0 in self._taken

    def longer(self, entry: PlanEntry) -> str | None:
        """Return the key that an image has where several folders are given, None where there is no such key."""
        if entry.key is None:
            return None
        names = (key for key, taken in zip(self._keys, self._taken, strict=True) if not taken)
        return next((key for key in names if key.endswith(f"/{entry.key}")), None)

    def images(self, positions: array[int]) -> Images:
        """Return the images at these positions, in this order."""
        return choose(self._images, np.frombuffer(positions, np.uint32))

    def rest(self) -> tuple[Images, Sequence[ContainerFile]]:
        """Return the inputs that nobody took, in order."""
        return choose_marked(self._images, np.frombuffer(self._taken, np.uint8) == 0), tuple(self._containers.values())
