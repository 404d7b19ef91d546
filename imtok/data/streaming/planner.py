"""A stream at work: one thread deals the windows, others fetch them, others decode; the trainer takes what is ready."""

# Axes: N rows of this rank, S crop.

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event, Semaphore, Thread
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from imtok.counted import counted
from imtok.data.batch import Batch
from imtok.data.crops import Cropping
from imtok.data.reading import Reading
from imtok.data.streaming.dealing import Dealing, Piece
from imtok.data.streaming.exchange import Exchange, Fetched
from imtok.data.streaming.fetching import Fetching
from imtok.data.streaming.source import STOPPED, ShardSource
from imtok.data.streaming.window_images import WindowImages
from imtok.data.streaming.windows import WindowOrder
from imtok.errors import Interrupted, TrainingError
from imtok.joint_batch import JointBatch

_AHEAD = 5  # batches that are planned before the trainer has used them
_TOGETHER = 4  # images that a thread decodes in one go
_POLL_SECONDS = 0.05  # the longest time that a request to stop may go unseen
_NAMED = 3  # shards in the error of a run that ends
_END_SECONDS = 5.0  # the longest wait for the planning thread at the end


class Settings(Protocol):
    """The part of a `ShardStream` that a planner needs."""

    source: ShardSource
    size: int
    joint: JointBatch
    order: WindowOrder
    cropping: Cropping
    workers: int
    max_shard_failures: int
    reading: Reading
    exchange: Exchange
    should_stop: Callable[[], bool]
    pin: bool
    unreadable: dict[str, str]
    failures: dict[str, str]


@dataclass
class _Planned:
    """A batch whose images are being decoded."""

    images: Tensor  # (N, 3, S, S) uint8
    tasks: list[Future[None]] = field(default_factory=list)
    place: Mapping[str, Any] | None = None


class Planner:
    """The next `steps` batches of a stream from `place` on, or from its beginning."""

    def __init__(self, stream: Settings, steps: int, place: Mapping[str, Any] | None) -> None:
        self._stream, self._steps = stream, steps
        size, parts, ranks = stream.joint.size, stream.joint.parts, range(stream.joint.ranks)
        counts = [len(JointBatch(size, parts, rank, len(ranks)).numbers) for rank in ranks]
        self._rows, self._rank = counts[stream.joint.rank], stream.joint.rank
        self._dealing = Dealing(counts, stream.order.per_epoch, place)
        self._ledger = _Ledger(stream, place or {})
        self._windows: dict[int, WindowImages | None] = {}  # of this rank; None before it is current
        self._fetching = Fetching(
            stream.source, stream.order, stream.reading, stream.exchange.publish, self._ledger.left_out
        )
        self._decoders = ThreadPoolExecutor(stream.workers, "imtok-decoding")
        self._planned: queue.SimpleQueue[_Planned | BaseException] = queue.SimpleQueue()
        self._room, self._stopped = Semaphore(_AHEAD), Event()
        self._thread = Thread(target=self._work, name="imtok-planning", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[Batch]:
        """Yield the batches in order; raises what ends the stream."""
        for _ in range(self._steps):
            planned = self._take()
            if isinstance(planned, BaseException):
                raise planned
            for task in planned.tasks:
                self._wait(task)
            yield Batch(planned.images, planned.place)
            self._room.release()

    def close(self) -> None:
        """End all threads, in the middle of a shard where they are."""
        self._stopped.set()
        self._room.release()
        self._thread.join(_END_SECONDS)
        self._fetching.close()
        self._decoders.shutdown(cancel_futures=True)
        self._windows.clear()

    def _take(self) -> _Planned | BaseException:
        while True:
            try:
                return self._planned.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._check_stop()

    def _wait(self, task: Future[None]) -> None:
        while not wait([task], _POLL_SECONDS).done:
            self._check_stop()
        task.result()

    def _check_stop(self) -> None:
        """Raise Interrupted once a stop is requested while a batch is not ready."""
        if self._stream.should_stop():
            raise Interrupted(STOPPED)

    def _work(self) -> None:
        try:
            for _ in range(self._steps):
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._planned.put(self._plan())
        except BaseException as error:
            if not self._stopped.is_set():
                self._planned.put(error)

    def _plan(self) -> _Planned:
        """Deal one batch to all ranks, and begin to decode this rank's."""
        side = self._stream.cropping.crop
        planned = _Planned(torch.empty(self._rows, 3, side, side, dtype=torch.uint8, pin_memory=self._stream.pin))
        self._hold()
        for rank in range(self._stream.joint.ranks):
            row = 0
            for piece in self._dealing.turn(rank, self._size_of):
                if rank == self._rank:
                    planned.tasks += self._begin_decoding(piece, planned.images.numpy()[row:])
                row += piece.stop - piece.start
            self._hold()
        planned.place = self._ledger.place(self._dealing.place())
        return planned

    def _hold(self) -> None:
        """Fetch the windows that this rank has been dealt, and let go those that it has ended."""
        held = self._dealing.held(self._rank)
        for window in [window for window in self._windows if window not in held]:
            del self._windows[window]
            self._fetching.end(window)
        for window in held:
            if window not in self._windows:
                self._windows[window] = None
                self._fetching.request(window)

    def _size_of(self, window: int) -> int:
        """Return the images of a window once it is fetched, by this rank or by another."""
        if window in self._dealing.held(self._rank):
            self._hold()
            images = self._windows[window] = self._fetching.get(window, self._stopped.is_set)
            fetched = Fetched(images.size, images.failed)
        else:
            fetched = self._stream.exchange.wait(window, self._stopped.is_set)
        self._ledger.enter(window, fetched)
        return fetched.size

    def _begin_decoding(self, piece: Piece, rows: np.ndarray) -> list[Future[None]]:
        """Decode a piece into the first of `rows` (N, 3, S, S), on the threads."""
        window = self._windows[piece.window]
        assert window is not None
        positions = [
            range(start, min(start + _TOGETHER, piece.stop)) for start in range(piece.start, piece.stop, _TOGETHER)
        ]
        window.begin(len(positions))
        return [
            self._decoders.submit(self._decode, window, some, rows[some.start - piece.start :]) for some in positions
        ]

    def _decode(self, window: WindowImages, positions: Sequence[int], rows: np.ndarray) -> None:
        stream = self._stream
        try:
            for row, position in enumerate(positions):
                picture = window.picture(position, stream.size, stream.reading, stream.unreadable)
                crop = stream.cropping.draw(picture, window.generator(position))
                rows[row] = crop.transpose(2, 0, 1)
        finally:
            window.done()


class _Ledger:
    """The shards that failed in a run, and the sizes of the windows of its place, which must be the same again."""

    def __init__(self, stream: Settings, place: Mapping[str, Any]) -> None:
        self._stream = stream
        self.left_out: dict[int, Sequence[int]] = {int(key): value for key, value in place.get("failed", {}).items()}
        self._expected = {int(window): size for window, size in place.get("sizes", {}).items()}
        self._failures: dict[int, str] = dict.fromkeys(place.get("failures", ()), "before the run was resumed")
        self._failed: dict[int, list[int]] = {}  # shards by window

    def enter(self, window: int, fetched: Fetched) -> None:
        """Count a window's failures; raises TrainingError for what ends the run, on all ranks alike."""
        if fetched.problem:
            raise TrainingError(fetched.problem)
        self._check_unchanged(window, fetched)
        self._failed[window] = sorted(fetched.failed)
        for shard, reason in sorted(fetched.failed.items()):
            self._failures.setdefault(shard, reason)
            if shard not in self.left_out.get(window, ()):
                self._stream.failures[self._stream.source.names[shard]] = reason
        if len(self._failures) > self._stream.max_shard_failures:
            named = list(self._failures.items())[-_NAMED:]
            last = "; ".join(f"{self._stream.source.names[shard]}: {reason}" for shard, reason in named)
            raise TrainingError(
                f"{counted(len(self._failures), 'shard has', 'shards have')} failed, and "
                f"{self._stream.max_shard_failures} may (the last: {last}); mend them, or allow more by "
                "--max-shard-failures"
            )

    def place(self, dealt: dict[str, Any]) -> dict[str, Any]:
        """Add the failures to a place: of its open windows, and of the whole run."""
        self._failed = {window: shards for window, shards in self._failed.items() if str(window) in dealt["sizes"]}
        failed = {str(window): shards for window, shards in sorted(self._failed.items()) if shards}
        return {**dealt, "failed": failed, "failures": sorted(self._failures)}

    def _check_unchanged(self, window: int, fetched: Fetched) -> None:
        """Raise TrainingError where a window is not what it was when its place was recorded."""
        expected = self._expected.pop(window, fetched.size)
        if fetched.size == expected:
            return
        names = self._stream.source.names
        again = {
            shard: reason for shard, reason in fetched.failed.items() if shard not in self.left_out.get(window, ())
        }
        why = "; ".join(f"{names[shard]}: {reason}" for shard, reason in again.items())
        shards = ", ".join(names[shard] for shard in self._stream.order.window(window).shards)
        raise TrainingError(
            f"the run was stopped among the {expected} images of {shards}, and cannot read these as before: "
            + (f"{why}; resume once it can be read" if why else f"there are {fetched.size} now; put the shards back")
        )
