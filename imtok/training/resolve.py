"""Configuration made definite: every `auto` becomes a device, a precision, a number of threads, or yes or no."""

from __future__ import annotations

from imtok.config import DataConfig, TrainConfig
from imtok.cores import usable_cores
from imtok.data.reading import RULES, Reading, Rules
from imtok.devices import fast_precision, resolve_device


def resolve(config: TrainConfig, saved: TrainConfig | None = None) -> TrainConfig:
    """Make `auto` definite: as in the saved configuration of the run where there is one, else for this machine."""
    device = str(saved.device if saved and config.device == "auto" else resolve_device(config.device))
    precision, threads = config.precision, config.threads
    if precision == "auto":
        precision = saved.precision if saved else fast_precision(resolve_device(device))
    if threads == 0:
        threads = saved.threads if saved else usable_cores()
    resolved: dict[str, object] = {"device": device, "precision": precision, "threads": threads}
    on_gpu = resolve_device(device).type == "cuda"
    for name in ("compile", "channels_last"):
        if getattr(config, name) == "auto":
            resolved[name] = getattr(saved, name) if saved else on_gpu
    if config.data.rules == "auto":
        rules = saved.data.rules if saved else RULES
        resolved["data"] = config.data.model_copy(update={"rules": rules})
    return config.model_copy(update=resolved)


def reading_of(data: DataConfig) -> Reading:
    """Return how a run reads its images, for a configuration whose `rules` are resolved."""
    rules: Rules = RULES if data.rules == "auto" else data.rules
    return Reading(rules=rules, max_pixels=data.max_pixels, salvage_images=data.salvage_images)
