"""The throughput of a run: images a second, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Throughput:
    """Images and seconds between two laps, and of all laps."""

    images: int = 0
    all_images: int = 0  # of all laps, like the next two
    all_seconds: float = 0.0
    all_waited: float = 0.0
    _start: float = field(default_factory=time.perf_counter)
    _waited: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as time spent waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out: it is neither training nor waiting."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def lap(self) -> tuple[float, float]:
        """Return images a second and the share of waiting since the last lap, and begin the next."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        result = self.images / seconds, self._waited / seconds
        self.all_images += self.images
        self.all_seconds += seconds
        self.all_waited += self._waited
        self.images, self._start, self._waited = 0, time.perf_counter(), 0.0
        return result
