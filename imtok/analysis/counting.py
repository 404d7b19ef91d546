"""A token set counted by all cores: each takes the next unit and adds it to a tally of its own.

Threads, since numpy's counting and sorting release the interpreter's lock. Figures do not depend on how many there
are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import CodeOutOfRange, Tally
from imtok.errors import Interrupted, TokensError
from imtok.tokens import TokenDataset

_POLL_SECONDS = 0.1  # between looks at what is done
_BYTES_A_CODE, _TABLE_BYTES = 20, 2**31  # of each thread's tables, and for all of them together


def count_tokens(
    tokens: TokenDataset,
    *,
    places: Sequence[int] | None = None,
    workers: int,
    sampling: Sampling | None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Tally:
    """Count the units at these `places` of `tokens.units`, all by default, on so many threads.

    Without `sampling` the codes are counted and nothing else.

    `progress` takes (units done, units in all), in the caller's thread. Raises TokensError on a damaged shard or codes
    the codebook does not have, and Interrupted once `should_stop` says so.
    """
    units = sorted(range(len(tokens.units)) if places is None else places)
    job = _Job(tokens, deque(units), sampling)
    tables = tokens.num_codebooks * tokens.codebook_size * _BYTES_A_CODE
    workers = max(1, min(workers, len(units), _TABLE_BYTES // tables))
    with ThreadPoolExecutor(workers, "imtok-stats") as pool:
        futures = [pool.submit(job.count) for _ in range(workers)]
        pending = set(futures)
        try:
            while pending:
                _, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
                if progress:
                    progress(job.done, len(units))
                if should_stop and should_stop():
                    raise Interrupted(f"{tokens.folder}: stopped on request; the same command begins anew")
                if any(future.done() and future.exception() for future in futures):
                    break
        finally:
            job.stopped = True
        tallies = [future.result() for future in futures]
    whole = tallies[0]
    for tally in tallies[1:]:
        whole.merge(tally)
    return whole


class _Job:
    """What the threads share."""

    def __init__(self, tokens: TokenDataset, waiting: deque[int], sampling: Sampling | None) -> None:
        self.tokens, self.waiting, self.sampling = tokens, waiting, sampling
        self.stopped = False
        self.done = 0
        self._lock = threading.Lock()

    def count(self) -> Tally:
        """Take unit after unit until none is left."""
        tokens = self.tokens
        tally = Tally(tokens.grid, tokens.codebook_size, tokens.num_codebooks, self.sampling)
        while not self.stopped:
            try:
                place = self.waiting.popleft()
            except IndexError:
                break
            start, shard = tokens.unit(place)
            try:
                tally.add(start, shard.codes, shard.labels)
            except CodeOutOfRange as error:
                raise TokensError(f"{tokens.shard_path(place)}: {error}; `imtok verify` tells more") from error
            with self._lock:
                self.done += 1
        return tally
