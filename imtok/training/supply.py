"""The batches of a run, and when to stop taking them: at the same step in all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imtok.data.batch import Batch
from imtok.errors import Interrupted, TrainingError
from imtok.processes import Processes


class Supply:
    """Batches until one process receives a request to stop, or a stream of one process gives no more.

    Several processes agree by a vote whose result comes a step later. So each holds the batch after the next one: where
    it cannot have that one, all processes know it in time.
    """

    def __init__(self, batches: Iterator[Batch], processes: Processes, should_stop: Callable[[], bool]) -> None:
        self._batches, self._processes, self._should_stop = batches, processes, should_stop
        self._stopped = processes.vote()
        self._coming: Batch | None = None
        self._begun = False
        self.failure: Interrupted | TrainingError | None = None  # why this process has no further batch

    def take(self) -> Batch | None:
        """Return the batch of the next step; None where all processes have to stop before it."""
        if not self._processes.several:
            return None if self._should_stop() else self._fetch()
        if not self._begun:
            self._begun = True
            with self._processes.together():
                self._coming = next(self._batches)
        batch, self._coming = self._coming, self._fetch()
        return None if self._stopped(self._should_stop() or self.failure is not None) else batch

    def _fetch(self) -> Batch | None:
        """Return the next batch; None at the end, and where the source fails."""
        try:
            return next(self._batches, None) if self.failure is None else None
        except (Interrupted, TrainingError) as error:
            self.failure = error
            return None
