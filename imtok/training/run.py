"""The run folder: its configuration, checkpoints, metrics and the finished tokenizer.

config.yaml                     the resolved configuration, written once
metrics.jsonl                   without times, so that a resumed run has the same bytes
timing.jsonl                    images/s and data wait
checkpoints/000012800.safetensors    the newest and the best, named by training images seen
checkpoints/000012800.damaged        one that a run could not resume from
best/                           the best tokenizer by the held-out images, with its metrics in its file
previews/000012800.png          held-out images above their reconstructions
tensorboard/                    where tensorboard is installed
tokenizer/                      written last: the finished tokenizer
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from imtok.config import TrainConfig, load_train_config, read_config_file
from imtok.errors import ConfigError, DiskError, TrainingError, disk_errors
from imtok.files import check_locks, claimed, sweep_temporaries, sync_file, sync_folder, write_atomically
from imtok.tokenizer import Tokenizer
from imtok.training.best import is_better
from imtok.training.checkpoint import under, unpack
from imtok.training.resolve import resolve
from imtok.training.state import TrainState

# Settings that a resumed run may change: they decide nothing about what it learns.
_FREE = {"data.max_shard_failures", "data.shard_cache", "data.shard_cache_gb"}
_UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, RuntimeError)


@dataclass
class JsonLines:
    """A .jsonl file that a full disk cannot break: refused lines wait for the next try, and no line is left half."""

    path: Path
    length: int = 0  # bytes known to be whole lines
    waiting: list[str] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one line after those that wait; after a DiskError the line waits too."""
        self.waiting.append(json.dumps(row) + "\n")
        self.write()

    def write(self, *, durable: bool = False) -> None:
        """Write the lines that wait; `durable` makes them outlive a power cut."""
        data = "".join(self.waiting).encode()
        with disk_errors(self.path), self.path.open("ab") as file:
            file.truncate(self.length)
            file.write(data)
            file.flush()
            if durable:
                sync_file(file)
        self.length += len(data)
        self.waiting.clear()

    def rewind(self, length: int | None = None, waiting: Sequence[str] = ()) -> None:
        """Cut the file back to its first `length` bytes, or to its last whole line, and let `waiting` lines follow.

        Raises TrainingError where the file is shorter.
        """
        with disk_errors(self.path):
            self.path.touch()
            if length is None:
                length = self.path.read_bytes().rfind(b"\n") + 1
            if self.path.stat().st_size < length:
                raise TrainingError(f"{self.path}: shorter than the checkpoint says; restore it or begin another run")
            os.truncate(self.path, length)
        self.length, self.waiting = length, list(waiting)


class RunFolder:
    """A run on disk; one process at a time works on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokenizer = path / "tokenizer"
        self.best = path / "best"
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.timing = JsonLines(path / "timing.jsonl")
        self._config = path / "config.yaml"
        self._checkpoints = path / "checkpoints"

    def saved_config(self) -> TrainConfig | None:
        """Read the configuration of the run, None for a new one; raises TrainingError on a folder that is no run."""
        if self._config.is_file():
            config = load_train_config(read_config_file(self._config), str(self._config))
            before: dict[str, object] = {}  # settings that the file is older than
            if config.data.rules == "auto":
                before["rules"] = 1
            if config.data.stream == "auto":
                before["stream"] = False
            return config.model_copy(update={"data": config.data.model_copy(update=before)})
        if self.path.is_dir() and any(item.name != ".lock" for item in self.path.iterdir()):
            raise TrainingError(f"{self.path}: exists and is no run of imtok; choose another folder for -o")
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path}: is a file; choose a folder for -o")
        return None

    @property
    def finished(self) -> bool:
        """True where the finished tokenizer is in place."""
        return self.tokenizer.is_dir()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run for this process; raises TrainingError while another holds it."""
        check_locks()
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(claimed(self.path / ".lock"))
            except BlockingIOError as error:
                raise TrainingError(
                    f"{self.path}: another process is training this run; wait for it or stop it"
                ) from error
            sweep_temporaries(self.path)
            yield

    def save_config(self, config: TrainConfig) -> None:
        """Write config.yaml."""
        write_atomically(self._config, config.to_yaml().encode())

    def checked_config(
        self, config: TrainConfig, saved: TrainConfig | None, sources: Sequence[str | Path], *, resume: bool
    ) -> TrainConfig:
        """Resolve the configuration for `sources` and this folder, whose own is `saved`.

        Raises ConfigError where it differs from `saved`, TrainingError where `resume` finds no checkpoint.
        """
        config = resolve(config, saved, sources)
        if saved is not None:
            self._check_config(saved, config)
        if resume and not self.finished and not self.has_checkpoint():
            raise TrainingError(f"{self.path}: --resume was given but there is no checkpoint; leave it out to begin")
        return config

    def _check_config(self, saved: TrainConfig, requested: TrainConfig) -> None:
        """Raise ConfigError naming the first setting in which the command differs from the run."""
        old, new = _flat(saved.model_dump(mode="json")), _flat(requested.model_dump(mode="json"))
        if old["images"] != new["images"]:
            raise ConfigError(self._other_length(saved, requested))
        for name in sorted((old.keys() | new.keys()) - _FREE):
            if old.get(name) != new.get(name):
                if self.finished:
                    raise ConfigError(
                        f"{self._config}: this run is finished and has {name} = {_as_yaml(old.get(name))}, the command "
                        f"asks for {_as_yaml(new.get(name))}; choose another -o for a new run, and --start-from "
                        f"{self.path} to begin it with this tokenizer"
                    )
                raise ConfigError(
                    f"{self._config}: this run has {name} = {_as_yaml(old.get(name))}, the command asks for "
                    f"{_as_yaml(new.get(name))}; choose another -o for a new run, or drop the setting to resume"
                )

    def _other_length(self, saved: TrainConfig, requested: TrainConfig) -> str:
        """Say why a run keeps its length, and how its tokenizer is trained on.

        Learning rate, discriminator and temperature follow the share of the run that is done. A run that became longer
        would have had another schedule from its first step on; at the end of the old one the rate is 0.
        """
        lengths = f"this run has images = {saved.images}, the command asks for {requested.images}"
        if not self.finished:
            return (
                f"{self._config}: {lengths}, and its learning rate follows the length that it began with; drop the "
                "setting to resume, or choose another -o for a new run"
            )
        if requested.images < saved.images:
            return f"{self._config}: {lengths}, and it is finished; choose another -o for a new run"
        longer = self.path.with_name(f"{self.path.name}-longer")
        more = requested.images - saved.images
        run, config, new = (shlex.quote(str(path)) for path in (self.path, self._config, longer))
        command = f"imtok train SOURCE --start-from {run} --config {config} --images {more} -o {new}"
        return (
            f"{self._config}: {lengths}; it is finished and its learning rate has fallen to 0, so it cannot be made "
            f"longer; train its tokenizer on by a run of its own: {command}"
        )

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        return bool(self._checkpoint_paths())

    def checkpoints_seen(self) -> list[int]:
        """List the training images seen at each checkpoint, newest first."""
        return [int(path.stem) for path in self._checkpoint_paths()]

    def save_checkpoint(self, state: TrainState, facts: dict[str, Any], *, kept: int, best: int | None) -> None:
        """Write a checkpoint whole or not at all, then drop all but the `kept` newest and that of `best` images seen.

        On a full disk the damaged and the older ones make room first; raises DiskError where that is not enough.
        """
        path, data = self._checkpoint_path(state.seen), state.to_bytes(facts)
        try:
            write_atomically(path, data)
        except DiskError as error:
            if not (error.full and self._drop_checkpoints(1, best, damaged=0)):
                raise
            write_atomically(path, data)
        self._drop_checkpoints(kept, best, damaged=kept, written=path)

    def _drop_checkpoints(self, kept: int, best: int | None, *, damaged: int, written: Path | None = None) -> int:
        """Remove old checkpoints and return their number.

        The `kept` newest stay, the best, the one just written, and the `damaged` newest of those set aside.
        """
        spared = {written, None if best is None else self._checkpoint_path(best)}
        old = [path for path in self._checkpoint_paths()[kept:] if path not in spared]
        old += sorted(self._checkpoints.glob("[0-9]*.damaged"), reverse=True)[damaged:]
        for path in old:
            with disk_errors(path):
                path.unlink(missing_ok=True)
        return len(old)

    def restore_newest(self, state: TrainState) -> tuple[dict[str, Any] | None, list[str]]:
        """Restore the newest whole checkpoint; return its facts, None without one, and notices on damaged ones.

        Damaged checkpoints are set aside, since the next ones would be older than they are. Raises TrainingError, and
        leaves all as it is, where no checkpoint can be read.
        """
        reasons: dict[Path, str] = {}
        for path in self._checkpoint_paths():
            try:
                facts = state.restore(path.read_bytes())
            except torch.OutOfMemoryError:
                raise
            except _UNREADABLE as error:
                reasons[path] = _reason(error)
            else:
                return facts, [self._set_aside(damaged, reason) for damaged, reason in reasons.items()]
        if reasons:
            found = "; ".join(f"{path.name}: {reason}" for path, reason in reasons.items())
            raise TrainingError(
                f"{self._checkpoints}: no checkpoint can be read ({found}); begin again with another -o"
            )
        return None, []

    def _set_aside(self, path: Path, reason: str) -> str:
        """Take a damaged checkpoint out of the count; return a notice on it."""
        aside = path.with_suffix(".damaged")
        with disk_errors(path):
            path.rename(aside)
        return f"{path}: damaged, skipped ({reason}); it is {aside.name} now"

    def ema_weights(self, seen: int) -> dict[str, Tensor] | None:
        """Read the weights of the EMA model after `seen` training images, None without a whole checkpoint of then."""
        try:
            return under(unpack(self._checkpoint_path(seen).read_bytes()), "average.")
        except _UNREADABLE:
            return None

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
        """Return the path of the preview after `seen` training images."""
        return self.path / "previews" / f"{seen:012d}.png"

    def last_validation(self) -> dict[str, Any]:
        """Read the last validation in metrics.jsonl, empty where there is none."""
        return next(reversed(self._validations()), {})

    def best_validation(self) -> dict[str, Any]:
        """Read the best validation in metrics.jsonl, empty where there is none."""
        best: dict[str, Any] = {}
        for metrics in self._validations():
            best = metrics if is_better(metrics, best) else best
        return best

    def _validations(self) -> list[dict[str, Any]]:
        path = self.metrics.path
        lines = path.read_text().splitlines() if path.exists() else []
        return [
            row
            for row in map(json.loads, [*lines, *self.metrics.waiting])
            if any(key.startswith("val/") for key in row)
        ]

    def _checkpoint_path(self, seen: int) -> Path:
        return self._checkpoints / f"{seen:012d}.safetensors"

    def _checkpoint_paths(self) -> list[Path]:
        """List the checkpoints, newest first."""
        return sorted(self._checkpoints.glob("[0-9]*.safetensors"), reverse=True)


def _reason(error: Exception) -> str:
    """Say in a few words why a checkpoint cannot be resumed from."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, SafetensorError):  # a header or sizes that are not those of a whole file
        return "cut short or overwritten"
    if isinstance(error, KeyError) or str(error).startswith("Error(s) in loading"):  # whole, but of other parts
        return "written by an earlier imtok"
    return str(error).splitlines()[0]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _as_yaml(value: Any) -> str:
    return "nothing" if value is None else str(yaml.safe_dump(value, default_flow_style=True)).splitlines()[0]
