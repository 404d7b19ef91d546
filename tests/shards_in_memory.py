"""Shards in memory, whose images say by their colour which they are, and that count what of them is still in memory."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from PIL import Image

from imtok.data.batch import Batch
from imtok.data.streaming.source import ShardFailure, never
from imtok.data.streaming.windows import WindowOrder
from imtok.errors import Interrupted

SIDE = 4  # pixels

ImageName = tuple[int, int]  # shard, number in the shard


class MemorySource:
    """Shard s has `sizes[s]` images of one colour, (s, number in the shard, 9).

    `failing` shards raise ShardFailure, `broken` images are no images, `stalled` shards end on a stop alone.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        failing: Iterable[int] = (),
        broken: Iterable[ImageName] = (),
        stalled: Iterable[int] = (),
    ) -> None:
        self.sizes, self.failing, self.broken, self.stalled = sizes, set(failing), set(broken), set(stalled)
        self.names = [f"memory://set/{shard:03d}.tar" for shard in range(len(sizes))]
        self.reads: list[int] = []
        self.memory = Memory()

    def read(self, number: int, should_stop: Callable[[], bool] = never) -> Sequence[tuple[str, bytes]]:
        self.reads.append(number)
        if number in self.stalled:
            stop = threading.Event()
            while not should_stop():
                stop.wait(0.01)
            raise Interrupted("stopped on request")
        if number in self.failing:
            raise ShardFailure(self.names[number], "the server answers 500")
        if self.sizes[number] == 0:
            raise ShardFailure(self.names[number], "it holds no image")
        return [(f"{number:03d}/{index}.png", self._image(number, index)) for index in range(self.sizes[number])]

    def _image(self, shard: int, index: int) -> bytes:
        data = b"no image" if (shard, index) in self.broken else of_colour((shard, index, 9))
        return _Counted(data, self.memory)


class Memory:
    """The number of images that are in memory, now and at most."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0
        self.lock = threading.RLock()

    def add(self, count: int) -> None:
        with self.lock:
            self.now += count
            self.most = max(self.most, self.now)


class _Counted(bytes):
    """Bytes that are counted while they live."""

    memory: Memory

    def __new__(cls, data: bytes, memory: Memory) -> _Counted:
        counted = super().__new__(cls, data)
        counted.memory = memory
        memory.add(1)
        return counted

    def __del__(self) -> None:
        self.memory.add(-1)


@lru_cache(maxsize=4096)
def of_colour(colour: tuple[int, int, int]) -> bytes:
    """The bytes of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, "PNG")
    return file.getvalue()


def image_names(batches: Iterable[Batch]) -> list[ImageName]:
    """The images that batches hold, by shard and number in the shard."""
    return [(int(image[0, 0, 0]), int(image[1, 0, 0])) for batch in batches for image in batch.images]


def all_images(sizes: Sequence[int] | Mapping[int, int]) -> list[ImageName]:
    """Every image of shards with these sizes, in order."""
    pairs = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes)
    return [(shard, index) for shard, size in pairs for index in range(size)]


def expected_images(source: MemorySource, order: WindowOrder, place: Any) -> Counter[ImageName]:
    """The images of all windows that were dealt before a place, but for the rest of those that are open there."""
    offsets = {window: offset for held in [*place["ranks"], place["queue"]] for window, offset in held}
    images: Counter[ImageName] = Counter()
    for number in range(place["next"]):
        window = order.window(number)
        names = all_images({shard: source.sizes[shard] for shard in window.shards if shard not in source.failing})
        used = order.images(window, len(names))[: offsets.get(number)]
        images.update(names[index] for index in used)
    return images
