"""The run folder: its configuration, checkpoints, metrics and the finished tokenizer.

config.yaml                     resolved, written once
metrics.jsonl                   deterministic: no times, so that a resumed run has the same bytes
timing.jsonl                    images/s and data wait
checkpoints/000012800.safetensors    the newest two, named by training images seen
previews/000012800.png          originals over reconstructions, images held out
tensorboard/                    where tensorboard is installed
tokenizer/                      written last: the finished tokenizer
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from imtok.config import TrainConfig, load_train_config, read_config_file
from imtok.errors import ConfigError, TrainingError, disk_errors
from imtok.files import sweep_temporaries, sync_folder, write_atomically
from imtok.tokenizer import Tokenizer
from imtok.training.state import TrainState

_KEPT = 2


class RunFolder:
    """A run on disk; one process at a time works on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokenizer = path / "tokenizer"
        self.metrics = path / "metrics.jsonl"
        self.timing = path / "timing.jsonl"
        self._config = path / "config.yaml"
        self._checkpoints = path / "checkpoints"

    def saved_config(self) -> TrainConfig | None:
        """The configuration the run began with, None for a new run; raises on a folder that is no run."""
        if self._config.is_file():
            return load_train_config(read_config_file(self._config), str(self._config))
        if self.path.is_dir() and any(item.name != ".lock" for item in self.path.iterdir()):
            raise TrainingError(f"{self.path}: exists and is no run of imtok; choose another folder for -o")
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path}: is a file; choose a folder for -o")
        return None

    @property
    def finished(self) -> bool:
        """The tokenizer has been written."""
        return self.tokenizer.is_dir()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run for this process; raises TrainingError while another holds it."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TrainingError(
                    f"{self.path}: another process is training this run; wait for it or stop it"
                ) from error
            sweep_temporaries(self.path)
            yield

    def save_config(self, config: TrainConfig) -> None:
        """Write config.yaml."""
        write_atomically(self._config, config.to_yaml().encode())

    def check_config(self, saved: TrainConfig, wanted: TrainConfig) -> None:
        """Raise ConfigError naming the first setting in which the command differs from the run."""
        old, new = _flat(saved.model_dump(mode="json")), _flat(wanted.model_dump(mode="json"))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise ConfigError(
                    f"{self._config}: this run has {name} = {_shown(old.get(name))}, the command asks for "
                    f"{_shown(new.get(name))}; choose another -o for a new run, or drop the setting to resume"
                )

    def has_checkpoint(self) -> bool:
        """There is something to resume from."""
        return bool(self._checkpoint_paths())

    def checkpoints_seen(self) -> list[int]:
        """Training images seen at each checkpoint, newest first."""
        return [int(path.stem) for path in self._checkpoint_paths()]

    def save_checkpoint(self, state: TrainState, extra: dict[str, Any]) -> None:
        """Write a checkpoint whole or not at all, then drop all but the newest ones."""
        write_atomically(self._checkpoints / f"{state.seen:012d}.safetensors", state.to_bytes(extra))
        for old in self._checkpoint_paths()[_KEPT:]:
            old.unlink(missing_ok=True)

    def restore_newest(self, state: TrainState) -> tuple[dict[str, Any] | None, list[str]]:
        """Restore the newest sound checkpoint: its extra facts, None without one, and words on damaged ones."""
        notices: list[str] = []
        for path in self._checkpoint_paths():
            try:
                return state.restore(path.read_bytes()), notices
            except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                notices.append(f"{path}: damaged, passed over ({reason})")
        if notices:
            raise TrainingError(f"{self._checkpoints}: no checkpoint can be read; begin again with another -o")
        return None, notices

    def sync_metrics(self) -> int:
        """Put metrics.jsonl on the disk, so that no checkpoint knows of lines a power cut took; its length."""
        with disk_errors(self.metrics), self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def rewind_metrics(self, length: int) -> None:
        """Cut metrics.jsonl back to what a checkpoint knew of it."""
        self.metrics.touch()
        if self.metrics.stat().st_size < length:
            raise TrainingError(f"{self.metrics}: shorter than the checkpoint says; restore it or begin another run")
        os.truncate(self.metrics, length)

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Put the finished tokenizer in place, whole or not at all."""
        unfinished = self.path / ".tokenizer-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, data in tokenizer.files().items():
            write_atomically(unfinished / name, data)
        with disk_errors(self.tokenizer):
            unfinished.rename(self.tokenizer)
            sync_folder(self.path)

    def preview_path(self, seen: int) -> Path:
        """Where the preview after `seen` training images goes."""
        return self.path / "previews" / f"{seen:012d}.png"

    def last_validation(self) -> dict[str, Any]:
        """The last validation in metrics.jsonl, empty where there is none."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        rows = (json.loads(line) for line in reversed(lines))
        return next((row for row in rows if "val/psnr" in row), {})

    def _checkpoint_paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self._checkpoints.glob("[0-9]*.safetensors"), reverse=True)


def append_json(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a .jsonl file."""
    with disk_errors(path), path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(yaml.safe_dump(value, default_flow_style=True)).splitlines()[0]
