"""The facts that a model card states: of the tokenizer, of the run that made it, and of what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imtok.config import TrainConfig
from imtok.errors import ConfigError, TrainingError
from imtok.evaluation import METRICS
from imtok.hub import is_hub_address
from imtok.tokenizer import Tokenizer, load
from imtok.training.best import written_metrics
from imtok.training.run import RunFolder


@dataclass(frozen=True)
class Measured:
    """Values of metrics and the protocol that they were measured by."""

    protocol: str
    images: int | None  # None where it is not recorded
    values: Mapping[str, Any]  # by the name of the metric, and `usage`, `perplexity`, `bits_per_image` where known


@dataclass(frozen=True)
class Facts:
    """A tokenizer, and what is known about it."""

    tokenizer: Tokenizer
    config: TrainConfig | None  # of the run that made it; None where that is not here
    measured: tuple[Measured, ...]


def gather(path: str | Path, evaluations: Sequence[str | Path] = ()) -> Facts:
    """Gather the facts about a tokenizer, a run or the best tokenizer of a run.

    `evaluations` are files of `imtok eval --json`. Raises TokenizerError where there is no tokenizer, TrainingError
    where its run is not finished, and ConfigError on an evaluation that cannot be read or is of another tokenizer.
    """
    run = _run_of(path)
    if run is not None and not run.finished:
        raise TrainingError(f"{run.path}: this run is not finished; run the same `imtok train` again to finish it")
    tokenizer = load(path)
    measured = [_read(Path(file), tokenizer) for file in evaluations]
    config = run.saved_config() if run is not None else None
    if run is not None and config is not None:
        best = Path(path).name == run.best.name
        values = written_metrics(run.best) if best else run.last_validation()
        measured += [_of_run(config, values)] if any(name.startswith("val/") for name in values) else []
    return Facts(tokenizer, config, tuple(measured))


def _run_of(path: str | Path) -> RunFolder | None:
    """Find the run that a path is, or whose `tokenizer` or `best` it is."""
    if is_hub_address(path):
        return None
    folder = Path(path).absolute()
    above = [folder.parent] if folder.name in ("tokenizer", "best") else []
    found = [place for place in (folder, *above) if (place / "config.yaml").is_file()]
    return RunFolder(found[0]) if found else None


def _of_run(config: TrainConfig, values: Mapping[str, Any]) -> Measured:
    """Return the metrics of a validation, with its protocol in words."""
    size = config.tokenizer.size
    named = {name.removeprefix("val/"): value for name, value in values.items() if name.startswith("val/")}
    methods = "; ".join(f"{METRICS[name].label} {METRICS[name].method}" for name in named if name in METRICS)
    protocol = (
        f"validation of the run, on at most {config.data.val_images} images held out of its training: PIL bicubic to "
        f"shorter side {size}, centre crop {size}x{size}, fp32, uint8 RGB; {methods}"
    )
    return Measured(protocol, None, named)


def _read(file: Path, tokenizer: Tokenizer) -> Measured:
    """Read what `imtok eval --json` printed."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON; give what `imtok eval --json` printed") from error
    if not isinstance(content, dict) or not isinstance(content.get("protocol"), str):
        raise ConfigError(f"{file}: names no protocol; give what `imtok eval --json` printed")
    fingerprint = content.get("fingerprint", tokenizer.fingerprint)
    if fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"{file}: measured on tokenizer {str(fingerprint)[:12]}, this one is {tokenizer.fingerprint[:12]}; measure "
            "this one"
        )
    values = {name: value for name, value in content.items() if isinstance(value, int | float)}
    return Measured(content["protocol"], content.get("images"), values)
