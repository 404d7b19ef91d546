"""The best tokenizer of a run, kept in one file with the metrics by which it is the best.

The metrics are in the metadata of the file of weights, which loading ignores. In a file of their own they could
belong to another tokenizer, since a kill can come between any two files. The best may be later than the checkpoint
that a run resumes from; it stays the best, since on a GPU the steps in between need not come out alike again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from imtok.evaluation import BEST_BY, METRICS
from imtok.files import write_atomically
from imtok.tokenizer import Tokenizer

_WEIGHTS, _METRICS = "model.safetensors", "validation"


class Best:
    """The best tokenizer so far; files that the disk refused wait here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, Any] = {}  # of its validation, and its `images`; empty before the first
        self._waiting: dict[str, bytes] = {}

    @property
    def is_written(self) -> bool:
        """True where there is a best tokenizer and `folder` holds it."""
        return bool(self.metrics) and not self._waiting

    @property
    def exists(self) -> bool:
        """True where `folder` holds a tokenizer, this one or the one before it."""
        return (self.folder / _WEIGHTS).is_file()

    def take(self, metrics: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        """Make this one the best; `write` puts it in place."""
        self.metrics = dict(metrics)
        files = tokenizer.files()
        weights, metadata = safetensors.torch.load(files[_WEIGHTS]), {_METRICS: json.dumps(self.metrics)}
        self._waiting = files | {_WEIGHTS: safetensors.torch.save(weights, metadata)}

    def write(self) -> None:
        """Put it in place of the one before, where that is still to do; after a DiskError it waits."""
        for name, data in self._waiting.items():
            write_atomically(self.folder / name, data)
        self._waiting = {}

    def restore(self, logged: Mapping[str, Any], saved: Callable[[int], Tokenizer | None]) -> None:
        """Go on with what `folder` holds, or with the best validation of the log where that is better.

        A full disk or a kill can have kept the latter from the folder: `saved` finds the tokenizer after so many
        training images, None where its checkpoint is gone.
        """
        self.metrics, self._waiting = written_metrics(self.folder), {}
        if logged and is_better(logged, self.metrics):
            tokenizer = saved(logged["images"])
            if tokenizer is not None:
                self.take(logged, tokenizer)


def written_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of the best tokenizer in `folder`, empty where there is none."""
    try:
        with safe_open(str(folder / _WEIGHTS), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    metrics: dict[str, Any] = json.loads(metadata.get(_METRICS, "{}"))
    return metrics


def is_better(metrics: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Return whether a validation is better than the best so far, or the first, by the first of `BEST_BY` in both."""
    if not best:
        return True
    name = next(name for name in BEST_BY if f"val/{name}" in metrics and f"val/{name}" in best)
    return METRICS[name].is_better(metrics[f"val/{name}"], best[f"val/{name}"])
