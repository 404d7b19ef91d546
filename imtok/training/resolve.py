"""Configuration made definite: every `auto` becomes a device, a precision, a number of threads, or yes or no."""

from __future__ import annotations

from imtok.config import TrainConfig
from imtok.cores import usable_cores
from imtok.devices import fast_precision, resolve_device


def resolve(config: TrainConfig, saved: TrainConfig | None = None) -> TrainConfig:
    """Make `auto` definite: as in the saved configuration of the run where there is one, else for this machine."""
    device = str(saved.device if saved and config.device == "auto" else resolve_device(config.device))
    precision, threads = config.precision, config.threads
    if precision == "auto":
        precision = saved.precision if saved else fast_precision(resolve_device(device))
    if threads == 0:
        threads = saved.threads if saved else usable_cores()
    resolved = {"device": device, "precision": precision, "threads": threads}
    on_gpu = resolve_device(device).type == "cuda"
    for name in ("compile", "channels_last"):
        if getattr(config, name) == "auto":
            resolved[name] = getattr(saved, name) if saved else on_gpu
    return config.model_copy(update=resolved)
