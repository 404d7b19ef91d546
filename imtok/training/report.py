"""Progress and report: the news that `train` gives its caller during the run and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imtok.analysis.statistics import Finding
from imtok.evaluation import Quality
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
        found = [f"{finding.text} (see {finding.page})" for finding in self.findings]
        return [*found, self.notice] if self.notice else found


@dataclass(frozen=True)
class TrainReport:
    """How the run ended."""

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
