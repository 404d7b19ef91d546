"""A sort of millions of pairs that never has them all as objects: compressed runs are merged as they are read.

Each run lies in memory in blocks, which are unpacked one after the other and gone after that. The compression makes
their keys, alike as neighbours are, a few bytes each.
"""

from __future__ import annotations

import marshal
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

_RUN = 2**17  # pairs that are sorted at once
_BLOCK = 2048  # pairs that are unpacked at once, of each run
_LEVEL = 1  # of compression: the fastest

_Pair = TypeVar("_Pair", bound=tuple[Any, ...])


def in_sorted_blocks(pairs: Iterable[_Pair]) -> Iterator[list[_Pair]]:
    """Yield tuples in their order, some thousand at a time, all being read first.

    They hold plain values alone, as text, bytes and whole numbers are, and the first one is text or bytes of any kind.
    """
    source = iter(pairs)
    runs: list[_Run[_Pair]] = []
    while run := list(islice(source, _RUN)):
        run.sort()
        more = len(run) == _RUN or runs
        runs.append(_Run(run, packed=bool(more)))
    return _merged(runs)


class _Run(Iterator[list[_Pair]]):
    """A sorted list, by its blocks."""

    def __init__(self, pairs: list[_Pair], *, packed: bool) -> None:
        self.first = pairs[0]
        blocks = [pairs[start : start + _BLOCK] for start in range(0, len(pairs), _BLOCK)] if packed else [pairs]
        blocks.reverse()  # the last one is taken off first
        self._blocks = [zlib.compress(marshal.dumps(block), _LEVEL) if packed else block for block in blocks]

    def __next__(self) -> list[_Pair]:
        if not self._blocks:
            raise StopIteration
        block = self._blocks.pop()
        return marshal.loads(zlib.decompress(block)) if isinstance(block, bytes) else block


def _merged(runs: list[_Run[_Pair]]) -> Iterator[list[_Pair]]:
    """Merge runs: all up to the nearest end of a block are sorted at once, which costs little, as most are in order."""
    waiting = sorted(runs, key=lambda run: run.first, reverse=True)
    runs.clear()
    open_runs: list[tuple[_Run[_Pair], list[_Pair]]] = []
    while waiting or open_runs:
        if not open_runs:
            run = waiting.pop()
            open_runs.append((run, next(run)))
        bound = min(block[-1] for _, block in open_runs)
        while waiting and waiting[-1].first <= bound:
            run = waiting.pop()
            open_runs.append((run, next(run)))
            bound = min(bound, open_runs[-1][1][-1])
        merged: list[_Pair] = []
        left = []
        for run, block in open_runs:
            cut = bisect_right(block, bound)
            merged += block[:cut]
            rest = block[cut:] or next(run, [])
            if rest:
                left.append((run, rest))
        if len(open_runs) > 1:
            merged.sort()
        open_runs = left
        yield merged
