"""The preparation of a run: its folder is looked at, its networks are tried, its random state and threads are set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from imtok.config import TrainConfig
from imtok.devices import deterministic
from imtok.processes import Processes
from imtok.tokenizer import check_quantizer
from imtok.training.adversarial import build_discriminator
from imtok.training.best import written_metrics
from imtok.training.initial import initial_tokenizer
from imtok.training.run import RunFolder


def look_at(folder: RunFolder, config: TrainConfig, sources: Sequence[str | Path], resume: bool) -> dict[str, Any]:
    """Look at the folder: the resolved configuration, and whether the run is new, has a checkpoint, or is finished."""
    check_quantizer(config.tokenizer.quantizer)
    saved = folder.saved_config()
    return {
        "config": folder.checked_config(config, saved, sources, resume=resume).model_dump(mode="json"),
        "new": saved is None,
        "resumed": folder.has_checkpoint(),
        "finished": folder.finished,
        "end": _end_of_finished(folder) if folder.finished else None,
    }


def _end_of_finished(folder: RunFolder) -> dict[str, Any]:
    best = written_metrics(folder.best)
    return {"validation": folder.last_validation(), "best": best, "best_is_written": bool(best)}


def check_networks(config: TrainConfig, *, resumed: bool) -> None:
    """Raise ConfigError or TokenizerError where networks cannot be built or begun with, before there is any work."""
    with torch.random.fork_rng(devices=[]):
        if config.adversarial.enabled:
            with torch.device("meta"):
                build_discriminator(config.adversarial.discriminator, config.data.crop)
        if config.start_from and not resumed:
            initial_tokenizer(config)


@contextmanager
def seeded(config: TrainConfig, device: torch.device, processes: Processes) -> Iterator[None]:
    """Give the run its own random state and number of threads, and the caller's back afterwards."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        torch.set_num_threads(max(1, config.threads // processes.local_ranks))
        try:
            with deterministic(device, "bf16" if config.precision == "bf16" else "fp32"):
                yield
        finally:
            torch.set_num_threads(threads)
