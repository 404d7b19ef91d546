"""Counting a token set: unit by unit in this process, or in one process a core where there is much to count.

Threads would wait for the interpreter: on two cores they took .87 of the time of one, and processes .55. The processes
are spawned, because a fork copies whatever state the threads of PyTorch are in. The number of processes changes no
statistic.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from types import ModuleType

from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import CodeOutOfRange, Tally
from imtok.cores import usable_cores
from imtok.errors import Interrupted, TokensError
from imtok.tokens import TokenDataset
from imtok.usage import CodebookUsage

Update = Callable[[int], None]  # takes the number of units that are done; may raise to end the count

_MANY = 2**27  # codes that take a second to count; a process needs half a second to start
_BYTES_A_CODE, _TABLE_BYTES = 20, 2**31  # of the tables of one process, and of all processes together
_POLL_SECONDS = 0.1  # between two reports of progress

# In a process of the pool: units done by all, and whether to stop. Reads take no lock: a killed process keeps its own.
_shared: list[tuple[Synchronized[int], Synchronized[int]]] = []


def codebook_usage(tokens: TokenDataset, progress: Callable[[int, int], None] | None = None) -> CodebookUsage:
    """Count every code of every codebook of an open data set, without its skipped images.

    `progress` takes (shards done, shards in all). Raises TokensError on codes the codebook does not have.
    """
    tally = count_tokens(tokens, workers=usable_cores(), sampling=None, progress=progress)
    return CodebookUsage.of_codebooks(tally.counts, tally.images)


def count_tokens(
    tokens: TokenDataset, *, workers: int, sampling: Sampling | None, progress: Callable[[int, int], None] | None = None
) -> Tally:
    """Count all units of a token set in at most `workers` processes; without `sampling` only the codes.

    `progress` takes (units done, units in all), and may raise to end the count. Raises TokensError on a damaged shard,
    on codes the codebook does not have, and where a process is killed.
    """
    units = range(len(tokens.units))

    def update(done: int) -> None:
        if progress:
            progress(done, len(units))

    update(0)
    table_bytes = tokens.num_codebooks * tokens.codebook_size * _BYTES_A_CODE
    workers = min(workers, len(units), _TABLE_BYTES // table_bytes)
    codes = len(tokens) * tokens.grid[0] * tokens.grid[1] * tokens.num_codebooks
    alone = multiprocessing.current_process().daemon or not hasattr(signal, "pthread_sigmask")  # a daemon, or Windows
    if workers < 2 or codes < _MANY or alone:
        return _count_units(tokens, units, sampling, update)
    return _count_in_processes(tokens, [units[first::workers] for first in range(workers)], sampling, update)


def _count_units(tokens: TokenDataset, units: Sequence[int], sampling: Sampling | None, update: Update) -> Tally:
    """Count the units with these indices of `tokens.units` in this process."""
    tally = Tally(tokens.grid, tokens.codebook_size, tokens.num_codebooks, sampling)
    for done, unit in enumerate(units, 1):
        start, shard = tokens.unit(unit)
        try:
            tally.add(start, shard.codes, shard.labels)
        except CodeOutOfRange as error:
            raise TokensError(f"{tokens.shard_path(unit)}: {error}; `imtok verify` tells more") from error
        update(done)
    return tally


def _count_in_processes(
    tokens: TokenDataset, shares: Sequence[Sequence[int]], sampling: Sampling | None, update: Update
) -> Tally:
    """Count the first share of the units in this process and every other share in a process of its own."""
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0)
    own = shares[0]
    with ProcessPoolExecutor(len(shares) - 1, context, _initialize, (done, stop)) as pool:
        with _detached():
            others = [pool.submit(_count_share, tokens, share, sampling) for share in shares[1:]]

        def update_all(own_done: int) -> None:
            for other in others:
                if other.done():
                    other.result()  # raises the error that ended its process
            update(own_done + done.get_obj().value)

        try:
            tally = _count_units(tokens, own, sampling, update_all)
            pending = set(others)
            while pending:
                pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION).not_done
                update_all(len(own))
            for other in others:
                tally.merge(other.result())
        except BrokenProcessPool as error:
            update(done.get_obj().value)  # where the signal came to this process too, it is a request to stop
            raise TokensError(
                f"{tokens.store}: a process that counted it was ended from outside, perhaps for want of memory; try "
                "fewer --workers"
            ) from error
        finally:
            stop.get_obj().value = 1
    return tally


@contextmanager
def _detached() -> Iterator[None]:
    """Let processes that start meanwhile neither run the caller's script again nor receive Ctrl-C.

    A spawned process imports the file of `__main__`, and would count again where that script has no guard. Ctrl-C is
    for this process alone, which then ends the others.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a process inherits what is blocked
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        sys.modules["__main__"] = main


def _initialize(done: Synchronized[int], stop: Synchronized[int]) -> None:
    """Prepare a process of the pool."""
    _shared.append((done, stop))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the process that started it ends, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _count_share(tokens: TokenDataset, units: Sequence[int], sampling: Sampling | None) -> Tally:
    """Count units in a process of the pool."""
    done, stop = _shared[0]

    def update(_: int) -> None:
        if stop.get_obj().value:
            raise Interrupted(f"{tokens.store}: stopped on request")
        with done.get_lock():
            done.value += 1

    return _count_units(tokens, units, sampling, update)
