"""The one queue of imtok: work spread over threads some way ahead of its reader, with results in order.

Pillow and torch release the interpreter's lock while they compute, so threads suffice. Where networks compute in the
threads, one batch per thread beats several threads per batch: nothing waits for anything (on two cores 100 images/s
against 80), and results do not depend on how many cores there are, since a convolution on two threads differs from
one in the last bits. Where the threads only read and decode, the reader keeps its cores for a network of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

import torch

from imtok.errors import Interrupted

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_POLL_SECONDS = 0.1  # the longest time that a request to stop may go unseen


class NothingYet:
    """In place of an item that is still waited for."""


def in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item | NothingYet],
    *,
    workers: int,
    ahead: int,
    one_core: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[_Result, None, None]:
    """Apply `function` to `items` on `workers` threads; yield the results in order, at most `ahead` before their turn.

    With `one_core` torch computes every operation on the core of its own thread, the caller's own operations
    included, until the iterator ends. Items that are NothingYet let results out while the next one is waited for.
    Raises what `function` raises, and Interrupted once `should_stop` says so.
    Close the iterator, or run it to its end: then no thread is left and torch's thread count is what it was.
    """
    # OpenMP keeps the thread count for each thread: those of the pool set it as they start.
    pool = ThreadPoolExecutor(workers, "imtok", *((torch.set_num_threads, (1,)) if one_core else ()))
    with one_core_each() if one_core else nullcontext(), pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                if isinstance(item, NothingYet):
                    if waiting:
                        yield result_of(waiting.popleft(), should_stop)
                    continue
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield result_of(waiting.popleft(), should_stop)
            while waiting:
                yield result_of(waiting.popleft(), should_stop)
        finally:
            for future in waiting:
                future.cancel()


def result_of(future: Future[_Result], should_stop: Callable[[], bool] | None) -> _Result:
    """Wait for a result; raises Interrupted once `should_stop` says so."""
    if should_stop is None:
        return future.result()
    while not should_stop():
        if wait([future], _POLL_SECONDS).done:
            return future.result()
    raise Interrupted("stopped on request")


class LeftBehind:
    """Threads that wait for other machines: a process that ends, or that has to stop, does not wait for them."""

    def __init__(self, workers: int) -> None:
        self._most, self._threads = workers, 0
        self._lock = Lock()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, function: Callable[[], _Result]) -> Future[_Result]:
        """Call a function on a thread as soon as one is free; work begins in the order in which it came."""
        future: Future[_Result] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._work.put(work)
        with self._lock:
            if self._threads < self._most:
                self._threads += 1
                Thread(target=self._run, name="imtok-remote", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end, each after the work that it does."""
        with self._lock:
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


@contextmanager
def one_core_each() -> Iterator[None]:
    """Let torch compute every operation within the block on the core of its own thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
