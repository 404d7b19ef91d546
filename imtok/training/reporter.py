"""Where the news of a run goes: to the caller, and a disk that refuses a file becomes a notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imtok.errors import DiskError
from imtok.training.report import ProgressCallback, TrainProgress
from imtok.training.state import TrainState


class Reporter:
    """Reports progress to the caller of `train`, at the place in the run where `state` is."""

    def __init__(self, state: TrainState, callback: ProgressCallback) -> None:
        self._state, self._callback = state, callback
        self._refused: set[str] = set()  # files that a full disk refused and that were reported

    def report(self, **news: Any) -> None:
        """Report news, the fields of `TrainProgress`; the last batch may go beyond the end, which counts as the end."""
        images = self._state.config.images
        self._callback(TrainProgress(min(self._state.seen, images), images, **news))

    def notice(self, text: str) -> None:
        """Report a sentence for a person."""
        self.report(notice=text)

    @contextmanager
    def surviving(self, what: str, *, last: bool = False) -> Iterator[None]:
        """Turn DiskError into a notice, one for each file and one for the `last` try; training goes on."""
        try:
            yield
        except DiskError as error:
            if last or what not in self._refused:
                self._refused.add(what)
                hope = "" if last else "; training goes on and will try again"
                self.notice(f"{what} could not be written ({error.finding}){hope}")
