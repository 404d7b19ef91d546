"""The best tokenizer of a run, kept in one file with the figures by which it is the best.

Its figures are in the metadata of its weights' file, which loading passes over: a kill can come between any two files,
and then the figures would be of another tokenizer. It may be later than the checkpoint that a run goes on from; it is
the best all the same, since on a GPU the steps in between need not come out alike again.
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

_WEIGHTS, _FIGURES = "model.safetensors", "validation"


class Best:
    """The best tokenizer so far; what the disk refuses of it waits here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: dict[str, Any] = {}  # of its validation, and its `images`; empty before the first
        self._waiting: dict[str, bytes] = {}

    @property
    def is_written(self) -> bool:
        """There is one, and `folder` holds it."""
        return bool(self.figures) and not self._waiting

    @property
    def is_there(self) -> bool:
        """`folder` holds a tokenizer, this or the one before it."""
        return (self.folder / _WEIGHTS).is_file()

    def take(self, figures: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        """Make this one the best; `write` puts it in place."""
        self.figures = dict(figures)
        files = tokenizer.files()
        weights, metadata = safetensors.torch.load(files[_WEIGHTS]), {_FIGURES: json.dumps(self.figures)}
        self._waiting = files | {_WEIGHTS: safetensors.torch.save(weights, metadata)}

    def write(self) -> None:
        """Put it in place of the last, where that is still to do; raises DiskError, and it waits on."""
        for name, data in self._waiting.items():
            write_atomically(self.folder / name, data)
        self._waiting = {}

    def restore(self, logged: Mapping[str, Any], saved: Callable[[int], Tokenizer | None]) -> None:
        """Go on with what `folder` holds, or with the best validation of the log where that is better.

        The latter was refused by a full disk before a stop, or came to a kill: `saved` finds the tokenizer after so
        many training images, None where its checkpoint is gone.
        """
        self.figures, self._waiting = written_figures(self.folder), {}
        if logged and is_better(logged, self.figures):
            tokenizer = saved(logged["images"])
            if tokenizer is not None:
                self.take(logged, tokenizer)


def written_figures(folder: Path) -> dict[str, Any]:
    """The figures of the best tokenizer in `folder`, empty where there is none."""
    try:
        with safe_open(str(folder / _WEIGHTS), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    figures: dict[str, Any] = json.loads(metadata.get(_FIGURES, "{}"))
    return figures


def is_better(figures: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """A validation is better than the best so far, if there is one, by the first of `BEST_BY` that both have."""
    if not best:
        return True
    name = next(name for name in BEST_BY if f"val/{name}" in figures and f"val/{name}" in best)
    return METRICS[name].is_better(figures[f"val/{name}"], best[f"val/{name}"])
