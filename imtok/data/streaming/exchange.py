"""The exchange of windows' sizes between ranks: who has fetched a window reports how many images it holds.

It goes over the store of the process group, which is CPU memory of one process behind a socket. So it needs no GPU and
no collective operation, and threads may use it while the trainer reduces gradients.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from threading import Condition
from typing import Any, Protocol

from imtok.data.streaming.source import STOPPED
from imtok.errors import Interrupted, TrainingError

_TIMEOUT = 1800.0  # seconds; the last try of a shard on a bad line comes late
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds between two looks


@dataclass(frozen=True)
class Fetched:
    """A window after all its shards were read or have failed."""

    size: int  # images
    failed: Mapping[int, str] = field(default_factory=dict)  # reasons by the numbers of shards
    problem: str = ""  # set where no rank can go on


class Exchange(Protocol):
    """The sizes of windows, from the rank that fetches a window to all others."""

    def publish(self, window: int, fetched: Fetched) -> None:
        """Report a window of this rank to the other ranks."""

    def wait(self, window: int, should_stop: Callable[[], bool]) -> Fetched:
        """Wait for a window of another rank; each rank may do so once a window.

        Raises Interrupted once `should_stop` says so, and TrainingError where nothing comes for half an hour.
        """


class LocalExchange:
    """An exchange within one process: for one rank, or for one thread a rank."""

    def __init__(self, ranks: int = 1, timeout: float = _TIMEOUT) -> None:
        self._others, self._timeout = ranks - 1, timeout
        self._windows: dict[int, tuple[Fetched, int]] = {}  # with the ranks that have still to see it
        self._changed = Condition()

    def publish(self, window: int, fetched: Fetched) -> None:
        """Report a window of this rank to the other ranks."""
        if self._others:
            with self._changed:
                self._windows[window] = (fetched, self._others)
                self._changed.notify_all()

    def wait(self, window: int, should_stop: Callable[[], bool]) -> Fetched:
        """Wait for a window of another rank, as `Exchange` says."""
        with self._changed:
            for pause in _pauses(window, self._timeout, should_stop):
                if window in self._windows:
                    break
                self._changed.wait(pause)
            fetched, others = self._windows.pop(window)
            if others > 1:
                self._windows[window] = (fetched, others - 1)
            return fetched


class StoreExchange:
    """An exchange over a `torch.distributed` store; a window's keys go once all other ranks have read them.

    All ranks construct theirs in the same order. Each construction has keys of its own, so a run that goes on in the
    same process group meets nothing of the run before.
    """

    def __init__(self, store: Any, rank: int, ranks: int, timeout: float = _TIMEOUT) -> None:
        self._store, self._others, self._timeout = store, ranks - 1, timeout
        start = store.add(f"imtok/streams/{rank}", 1)
        self._prefix = f"imtok/stream/{start}"

    def publish(self, window: int, fetched: Fetched) -> None:
        """Report a window of this rank to the other ranks."""
        self._store.set(self._key(window), json.dumps(asdict(fetched)))

    def wait(self, window: int, should_stop: Callable[[], bool]) -> Fetched:
        """Wait for a window of another rank, as `Exchange` says."""
        key = self._key(window)
        # A blocking wait would hold the connection, over which this rank has to publish its own windows.
        for pause in _pauses(window, self._timeout, should_stop):
            if self._store.check([key]):
                break
            time.sleep(pause)
        values = json.loads(self._store.get(key))
        if self._store.add(f"{key}/readers", 1) == self._others:
            self._store.delete_key(key)
            self._store.delete_key(f"{key}/readers")
        return Fetched(**values | {"failed": {int(shard): reason for shard, reason in values["failed"].items()}})

    def _key(self, window: int) -> str:
        return f"{self._prefix}/{window}"


def _pauses(window: int, timeout: float, should_stop: Callable[[], bool]) -> Any:
    """Yield ever longer pauses until the time is up; raises Interrupted or TrainingError as `Exchange.wait` does."""
    end, pause = time.monotonic() + timeout, _FIRST_PAUSE
    while time.monotonic() < end:
        if should_stop():
            raise Interrupted(STOPPED)
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise TrainingError(
        f"window {window} of the stream was not fetched by its process for {timeout:g} seconds; look at the messages "
        "of the other processes, then run the same command again to resume"
    )
