"""A token set counted: unit by unit in this process, or, where there is much to count, by one process a core.

Processes, as threads would wait for the interpreter: on two cores they took .87 of one thread's time, processes .55.
They are started by themselves rather than by `multiprocessing`, which runs a caller's script again unless it is guarded
against that. Figures do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imtok.analysis.processes import count_in_processes
from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import CodeOutOfRange, Tally
from imtok.cores import usable_cores
from imtok.errors import TokensError
from imtok.tokens import TokenDataset
from imtok.usage import CodebookUsage

_MANY = 2**27  # codes: so many take a second, and a process half of one to start
_BYTES_A_CODE, _TABLE_BYTES = 20, 2**31  # of each process's tables, and for all of them together


def count_tokens(
    tokens: TokenDataset,
    *,
    places: Sequence[int] | None = None,
    workers: int,
    sampling: Sampling | None,
    progress: Callable[[int, int], None] | None = None,
) -> Tally:
    """Count the units at these `places` of `tokens.units`, all by default, by so many processes at most.

    Without `sampling` the codes are counted and nothing else. `progress` takes (units done, units in all), and may
    raise to end it. Raises TokensError on a damaged shard or codes the codebook does not have.
    """
    units = sorted(range(len(tokens.units)) if places is None else places)

    def update(done: int) -> None:
        if progress:
            progress(done, len(units))

    workers = min(workers, len(units), _TABLE_BYTES // (tokens.num_codebooks * tokens.codebook_size * _BYTES_A_CODE))
    each = tokens.grid[0] * tokens.grid[1] * tokens.num_codebooks * len(tokens)
    if workers < 2 or each * len(units) < _MANY * len(tokens.units):
        return count_units(tokens, units, sampling, update)
    shares = [units[first::workers] for first in range(workers)]
    return count_in_processes(count_units, tokens, shares, sampling, update)


def count_units(
    tokens: TokenDataset, places: Sequence[int], sampling: Sampling | None, update: Callable[[int], None]
) -> Tally:
    """Count units in this process; `update` takes how many are done, and may raise to end it."""
    tally = Tally(tokens.grid, tokens.codebook_size, tokens.num_codebooks, sampling)
    update(0)
    for done, place in enumerate(places, 1):
        start, shard = tokens.unit(place)
        try:
            tally.add(start, shard.codes, shard.labels)
        except CodeOutOfRange as error:
            raise TokensError(f"{tokens.shard_path(place)}: {error}; `imtok verify` tells more") from error
        update(done)
    return tally


def codebook_usage(tokens: TokenDataset, progress: Callable[[int, int], None] | None = None) -> CodebookUsage:
    """Codebook use of an open data set; every code of every codebook counts, skipped images do not.

    `progress` takes (shards done, shards in all). Raises TokensError on codes the codebook does not have.
    """
    tally = count_tokens(tokens, workers=usable_cores(), sampling=None, progress=progress)
    return CodebookUsage.of_codebooks(tally.counts, tally.images)
