"""The dealing of windows to ranks: a simulation of all ranks, from the sizes of windows alone.

Each rank holds two windows: the current one and the next one, which it fetches meanwhile. When a rank ends its
current window, the next window of the sequence is dealt to it. Ranks take turns in the order (batch, rank), so every
rank finds the same dealing by itself. The size of a window is needed only once the window is current: a rank knows its
next window, and can fetch it, before any other rank has fetched its own.

The promise: windows are dealt in the order of the sequence, and a dealt window waits for the rest of one window of its
rank at most. So of all windows dealt, two a rank at most are unfinished.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from imtok.errors import TrainingError

_HELD = 2  # windows of a rank: the current one and the next


class Piece(NamedTuple):
    """Consecutive positions of a window that one rank uses in one batch."""

    window: int
    start: int
    stop: int


class Dealing:
    """The windows of all ranks, from the beginning or from a `place`; rank r uses `counts[r]` images a batch.

    A place of the same number of ranks is gone on from as it is. With another number, the windows in the place are
    dealt first, in the order of the sequence and from where they were left; those that no rank can hold yet wait in a
    queue. `per_epoch` is the number of windows of an epoch.
    """

    def __init__(self, counts: Sequence[int], per_epoch: int, place: Mapping[str, Any] | None = None) -> None:
        self._counts, self._per_epoch = counts, per_epoch
        self._next = 0  # the first window that no rank has held yet
        self._queue: deque[list[int]] = deque()  # [window, offset], left by another number of ranks
        self._held: list[deque[list[int]]] = [deque() for _ in counts]
        self._sizes: dict[int, int] = {}  # of windows that are begun and not ended
        self._empty: Counter[int] = Counter()  # empty windows by epoch
        if place is not None:
            self._go_on_from(place)
        for _ in range(_HELD):
            for held in self._held:
                if len(held) < _HELD:
                    held.append(self._deal())

    def _go_on_from(self, place: Mapping[str, Any]) -> None:
        self._next = place["next"]
        ranks, queue = [[list(window) for window in held] for held in place["ranks"]], map(list, place["queue"])
        if len(ranks) == len(self._held):
            self._held, self._queue = [deque(held) for held in ranks], deque(queue)
        else:
            self._queue = deque(sorted([*(window for held in ranks for window in held), *queue]))

    def held(self, rank: int) -> list[int]:
        """Return the windows that a rank holds now, in the order of their use."""
        return [window for window, _ in self._held[rank]]

    def place(self) -> dict[str, Any]:
        """Return where all ranks are, as JSON: `ranks` and `queue` have pairs [window, images used of it]."""
        return {
            "next": self._next,
            "ranks": [[list(window) for window in held] for held in self._held],
            "queue": [list(window) for window in self._queue],
            "sizes": {str(window): size for window, size in sorted(self._sizes.items())},
        }

    def turn(self, rank: int, size_of: Callable[[int], int]) -> Iterator[Piece]:
        """Yield what a rank uses in one batch; the iterator has to be run to its end.

        `size_of` returns the number of images of a window, and may wait for it; each window is requested once. An
        empty window is passed over. Raises TrainingError where all windows of an epoch are empty.
        """
        left, held = self._counts[rank], self._held[rank]
        while left:
            window, start = held[0]
            size = self._size(window, size_of)
            stop = min(size, start + left)
            held[0][1] = stop
            left -= stop - start
            if stop == size:  # at once, so that the next window but one is fetched as early as can be
                held.popleft()
                held.append(self._deal())
                del self._sizes[window]
            if stop > start:
                yield Piece(window, start, stop)

    def _deal(self) -> list[int]:
        if self._queue:
            return self._queue.popleft()
        self._next += 1
        return [self._next - 1, 0]

    def _size(self, window: int, size_of: Callable[[int], int]) -> int:
        if window not in self._sizes:
            self._sizes[window] = size_of(window)
            if self._sizes[window] == 0:
                self._count_empty(window // self._per_epoch)
        return self._sizes[window]

    def _count_empty(self, epoch: int) -> None:
        oldest = min(window for held in self._held for window, _ in held) // self._per_epoch
        self._empty = Counter({known: count for known, count in self._empty.items() if known >= oldest})
        self._empty[epoch] += 1
        if self._empty[epoch] == self._per_epoch:
            raise TrainingError("no shard of a whole epoch could be read; see why above, and resume when they can be")
