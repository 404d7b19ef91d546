"""Small training runs: their configurations, how they are stopped, and a disk that is full under them."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imtok.training.best as best_module
import imtok.training.run as run_module
from imtok.config import TrainConfig, load_train_config, merge, parse_settings
from imtok.errors import DiskError, Interrupted
from imtok.training import TrainProgress, TrainReport, train

TINY = [
    "size=16",
    "data.crop=16",
    "network.fold=2",
    "network.channels=[8,16]",
    "network.blocks=1",
    "quantizer={kind: fsq, levels: [5,5,3]}",
    "images=96",
    "batch_size=8",
    "validate_every=40",
    "checkpoint_every=24",
    "data.val_fraction=0.2",
    "threads=1",
    "precision=fp32",
]
VQ = [
    "quantizer.kind=vq",
    "quantizer.dim=4",
    "quantizer.num_codes=16",
    "quantizer.estimator=rotation",
    "quantizer.revival_threshold=0.5",
]
GAN = [
    "adversarial.weight=0.1",
    "adversarial.start=0.25",
    "adversarial.warmup=0.1",
    "adversarial.ramp=0.25",
    "adversarial.r1=1",
    "adversarial.r1_every=4",
    "adversarial.discriminator={channels: 4, layers: 1}",
]


def tiny(*settings: str) -> TrainConfig:
    return load_train_config(merge(parse_settings(TINY), parse_settings(["quantizer.kind=fsq", *settings])))


def run_until(stops: list[int], pictures: Path, run: Path, config: TrainConfig) -> TrainReport:
    """Train, stopping once each of the numbers of images is reached and starting again, then to the end."""
    seen = 0

    def note(progress: TrainProgress) -> None:
        nonlocal seen
        seen = progress.seen

    for stop in stops:
        with pytest.raises(Interrupted):
            train([pictures], run, config, progress=note, should_stop=lambda stop=stop: seen >= stop)
    return train([pictures], run, config, progress=note)


def stop_at(seen: int) -> dict[str, Callable[..., Any]]:
    """Arguments for `train` that stop it, with a checkpoint, once so many images are seen."""
    reached = 0

    def note(progress: Any) -> None:
        nonlocal reached
        reached = progress.seen

    return {"progress": note, "should_stop": lambda: reached >= seen}


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class FullDisk:
    """Refuses what is written below a folder while it is full."""

    def __init__(self, patch: pytest.MonkeyPatch, *parts: str) -> None:
        self.full, self.refused, self.parts = False, 0, parts
        self.write = run_module.write_atomically
        patch.setattr(run_module, "write_atomically", self)
        patch.setattr(best_module, "write_atomically", self)

    def __call__(self, path: Path, data: bytes) -> None:
        if self.full and any(part in path.parts for part in self.parts):
            self.refused += 1
            raise DiskError(path, "No space left on device", errno.ENOSPC)
        self.write(path, data)
