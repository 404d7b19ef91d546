"""Progress and report: the news that `train` gives its caller during the run and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imtok.analysis.statistics import Finding
from imtok.errors import DiskError
from imtok.evaluation import Quality
from imtok.training.state import TrainState
from imtok.usage import CodebookUsage


@dataclass(frozen=True)
class TrainProgress:
    """One piece of news: one after every step, with more fields filled in where there is more."""

    seen: int
    images: int
    metrics: dict[str, float] | None = None  # a line of the log
    usage: CodebookUsage | None = None  # of the codes since the last line
    images_per_second: float = 0.0
    data_wait: float = 0.0  # share of the time spent waiting for images
    validation: Quality | None = None
    best: dict[str, Any] = field(default_factory=dict)  # with a validation: the metrics of the best so far
    findings: tuple[Finding, ...] = ()  # with a validation: problems in the use of the codebook
    notice: str | None = None

    @property
    def notes(self) -> list[str]:
        """Return the sentences that a person should read."""
        found = [f"{finding.text} ({finding.name})" for finding in self.findings]
        return [*found, self.notice] if self.notice else found


@dataclass(frozen=True)
class TrainReport:
    """The result of a run."""

    run: Path
    tokenizer: Path
    images: int
    seconds: float
    resumed_from: int  # training images seen before this call
    already_done: bool
    validation: dict[str, Any]  # `val/psnr` and so on, empty where nothing was held out
    best: dict[str, Any] = field(default_factory=dict)  # the best validation and its `images`, empty as above
    best_tokenizer: Path | None = None  # None too where the disk refused it to the end
    images_per_second: float = 0.0  # of this call, validations and checkpoints left out
    data_wait: float = 0.0  # share of that time spent waiting for images
    skipped_steps: int = 0  # whose losses or gradients were not finite, in the whole run
    findings: tuple[Finding, ...] = ()  # of the last validation: problems in the use of the codebook


ProgressCallback = Callable[[TrainProgress], None]


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
        """Turn DiskError into a notice, one for each file and one for the `last` try; training continues."""
        try:
            yield
        except DiskError as error:
            if last or what not in self._refused:
                self._refused.add(what)
                hope = "" if last else "; training continues and will try again"
                self.notice(f"{what} could not be written ({error.finding}){hope}")
