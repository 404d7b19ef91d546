"""Windows fetched ahead of their use: several shards at once, and no more than two windows in memory.

The most memory for encoded images is thus that of two windows: 2 * width * bytes of the largest shard, for each rank.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread

from imtok.data.reading import Reading
from imtok.data.streaming.exchange import Fetched
from imtok.data.streaming.source import STOPPED, ShardFailure, ShardSource
from imtok.data.streaming.window_images import EncodedImage, WindowImages, check_readable
from imtok.data.streaming.windows import Window, WindowOrder
from imtok.errors import Interrupted

_AT_ONCE = 2  # windows in memory
_THREADS = 4  # shards that are read at once
_POLL_SECONDS = 0.05
_END_SECONDS = 2.0  # the longest wait for a storage that does not look at `should_stop`


class Fetching:
    """The windows of one rank, in the order of `request`; `publish` is called with each as it is whole.

    `left_out` has the shards that are not tried, by window: those that had failed when a place was recorded.
    """

    def __init__(
        self,
        source: ShardSource,
        order: WindowOrder,
        reading: Reading,
        publish: Callable[[int, Fetched], None],
        left_out: dict[int, Sequence[int]],
    ) -> None:
        self._source, self._order, self._reading = source, order, reading
        self._publish, self._left_out = publish, left_out
        self._requested: deque[int] = deque()
        self._windows: dict[int, Future[WindowImages]] = {}
        self._in_memory = 0
        self._lock, self._stopped = Lock(), Event()
        self._tasks: queue.SimpleQueue[tuple[_Unfinished, int] | None] = queue.SimpleQueue()
        # Daemons, so that a storage that hangs does not keep the process alive.
        self._threads = [Thread(target=self._work, name="imtok-shards", daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def request(self, number: int) -> None:
        """Fetch a window as soon as there is room; a window that was requested before is left as it is."""
        with self._lock:
            if number not in self._windows:
                self._windows[number] = Future()
                self._requested.append(number)
        self._begin_next()

    def get(self, number: int, should_stop: Callable[[], bool]) -> WindowImages:
        """Wait for a requested window; raises Interrupted once `should_stop` says so, and what a storage raises."""
        future = self._windows[number]
        while not should_stop():
            if wait([future], _POLL_SECONDS).done:
                return future.result()
        raise Interrupted(STOPPED)

    def end(self, number: int) -> None:
        """Let a window go once the uses of its images that were counted are done."""
        self._windows.pop(number).result().end()

    def close(self) -> None:
        """End the threads, in the middle of a shard where they are."""
        self._stopped.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._windows.clear()

    def _begin_next(self) -> None:
        while True:
            with self._lock:
                if not self._requested or self._in_memory == _AT_ONCE:
                    return
                self._in_memory += 1
                number = self._requested.popleft()
            self._begin(number)

    def _begin(self, number: int) -> None:
        window, left_out = self._order.window(number), self._left_out.get(number, ())
        failed = dict.fromkeys(left_out, "it had failed before")
        remaining = [index for index, shard in enumerate(window.shards) if shard not in failed]
        unfinished = _Unfinished(number, window, [() for _ in window.shards], failed, len(remaining))
        for index in remaining:
            self._tasks.put((unfinished, index))
        if not remaining:
            self._finish(unfinished)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._stopped.is_set():
            unfinished, index = task
            try:
                self._read(unfinished, index)
            except BaseException as error:
                self._fail(unfinished.number, error)
            del task, unfinished  # nothing of a window stays in memory while a thread waits for the next

    def _read(self, unfinished: _Unfinished, index: int) -> None:
        shard = unfinished.window.shards[index]
        try:
            unfinished.parts[index] = self._source.read(shard, self._stopped.is_set)
            check_readable(self._source.names[shard], unfinished.parts[index], self._reading)
        except ShardFailure as error:
            unfinished.parts[index], unfinished.failed[shard] = (), error.reason
        with self._lock:
            unfinished.remaining -= 1
            last = unfinished.remaining == 0
        if last:
            self._finish(unfinished)

    def _finish(self, unfinished: _Unfinished) -> None:
        number, failed = unfinished.number, unfinished.failed
        images = [image for part in unfinished.parts for image in part]
        window = WindowImages(number, unfinished.window, self._order, images, failed, self._released)
        unfinished.parts.clear()
        del images  # the window alone holds its images now, and lets them go when they are used
        self._publish(number, Fetched(window.size, failed))
        self._windows[number].set_result(window)

    def _fail(self, number: int, error: BaseException) -> None:
        """Hand an error that no other shard mends to who waits for the window, and its words to the other ranks."""
        with self._lock:
            future = self._windows[number]
            if future.done():
                return
            future.set_exception(error)
        if not self._stopped.is_set():
            with suppress(Exception):  # where the store is gone, the other ranks learn it from their group
                self._publish(number, Fetched(0, problem=str(error) or type(error).__name__))

    def _released(self) -> None:
        with self._lock:
            self._in_memory -= 1
        self._begin_next()


@dataclass
class _Unfinished:
    """A window while its shards are read."""

    number: int
    window: Window
    parts: list[Sequence[EncodedImage]]  # images by the index of a shard in the window
    failed: dict[int, str]
    remaining: int  # shards
