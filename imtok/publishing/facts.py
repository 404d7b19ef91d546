"""The facts that a model card states: of the tokenizer, of the run that made it, and of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imtok.config import TrainConfig
from imtok.errors import ConfigError, TrainingError
from imtok.evaluation import METRICS, read_results
from imtok.evaluation.entries import NamedTokenizer
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
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, by the name of the metric
    weights: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of networks by the name of the metric


@dataclass(frozen=True)
class Facts:
    """A tokenizer, and what is known about it."""

    tokenizer: Tokenizer
    config: TrainConfig | None  # of the run that made it; None where that is not here
    measured: tuple[Measured, ...]


def gather(path: str | Path, evaluations: Sequence[str | Path] = ()) -> Facts:
    """Gather the facts about a tokenizer, a run or the best tokenizer of a run.

    `evaluations` are folders of `imtok eval -o`, or files of what `imtok eval --json` printed. Raises TokenizerError
    where there is no tokenizer, TrainingError where its run is not finished, and ConfigError on an evaluation that
    cannot be read or is of another tokenizer.
    """
    run = _run_of(path)
    if run is not None and not run.finished:
        raise TrainingError(f"{run.path}: this run is not finished; run the same `imtok train` again to finish it")
    tokenizer = load(path)
    own = NamedTokenizer.of(str(path), tokenizer)
    measured = [each for evaluation in evaluations for each in _of_evaluation(evaluation, own)]
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


def _of_evaluation(path: str | Path, own: NamedTokenizer) -> list[Measured]:
    """Return the results of an evaluation that are of a tokenizer, decoder included; raises ConfigError without any."""
    results = read_results(path)
    found = [
        result
        for result in results
        if result.fingerprint in ("", own.fingerprint) and result.files_sha256 in ("", own.files_sha256)
    ]
    if not found:
        names = ", ".join(dict.fromkeys(result.tokenizer for result in results))
        raise ConfigError(f"{path}: measures {names} with other weights than this tokenizer's; measure this one")
    return [
        Measured(
            protocol=result.protocol,
            images=result.images,
            values={**result.metrics, **result.usage, "bits_per_image": result.bits_per_image},
            intervals=result.intervals,
            weights=result.weights,
        )
        for result in found
    ]
