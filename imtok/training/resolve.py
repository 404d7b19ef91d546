"""Configuration made definite: every `auto` becomes a device, a precision, a number of threads, or yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from imtok.config import DataConfig, TrainConfig
from imtok.config.origin import Origin
from imtok.cores import usable_cores
from imtok.counted import counted
from imtok.data.addresses import is_remote, redacted
from imtok.data.reading import RULES, Reading, Rules
from imtok.devices import fast_precision, resolve_device
from imtok.errors import ConfigError
from imtok.hub import is_hub_address, parse_address, pin
from imtok.processes import Processes
from imtok.tokenizer import load


def resolve(config: TrainConfig, saved: TrainConfig | None = None, sources: Sequence[str | Path] = ()) -> TrainConfig:
    """Make `auto` definite: as in the saved configuration of the run where there is one, else for this machine.

    `sources` decide about a stream, and `start_from` about the origin of the weights. Raises ConfigError where URLs are
    not to be streamed, TokenizerError where a new run cannot start from `start_from`.
    """
    config = config.model_copy(update={"start_from": pinned_start(config.start_from, saved)})
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
    resolved["data"] = _resolved_data(config.data, saved.data if saved else None, sources)
    origin = saved.tokenizer.origin if saved else _origin(config)
    if origin != config.tokenizer.origin:
        resolved["tokenizer"] = config.tokenizer.model_copy(update={"origin": origin})
    return config.model_copy(update=resolved)


def _origin(config: TrainConfig) -> Origin | None:
    """Return the published checkpoint that the weights of the run will descend from; none where they are drawn."""
    start = load(config.start_from).config.origin if config.start_from else None
    return start.after_training(freeze_codes=config.freeze_codes) if start else None


def pinned_start(start_from: str, saved: TrainConfig | None) -> str:
    """Return `start_from`, an address of the Hub with the commit that it means: for a run that exists the saved one.

    Raises HubError where the Hub has none or cannot be reached.
    """
    if not is_hub_address(start_from):
        return start_from
    before = saved.start_from if saved else ""
    if is_hub_address(before) and parse_address(start_from).may_mean(parse_address(before)):
        return before
    return str(pin(start_from))


def _resolved_data(data: DataConfig, saved: DataConfig | None, sources: Sequence[str | Path]) -> DataConfig:
    resolved: dict[str, object] = {}
    if data.rules == "auto":
        resolved["rules"] = saved.rules if saved else RULES
    remote = [str(source) for source in sources if is_remote(str(source))]
    if data.stream == "auto":
        resolved["stream"] = bool(remote) or bool(saved and saved.stream is True)
    elif remote and not data.stream:
        raise ConfigError(
            f"data.stream is false, and {redacted(remote[0])} can only be streamed; leave the setting out"
        )
    if data.window == 0 and saved:
        resolved["window"] = saved.window
    data = data.model_copy(update=resolved)
    if data.stream and data.rules == 1:
        raise ConfigError("data.rules=1 is for runs of before streams; leave it out to stream")
    return data


def device_of(config: TrainConfig, processes: Processes) -> torch.device:
    """Return the device of this process, for a resolved configuration; each of several takes a GPU of its machine.

    Raises ConfigError where the machine has too few.
    """
    device = resolve_device(config.device)
    if not processes.several or device.type != "cuda":
        return device
    if device.index is not None:
        raise ConfigError(f"device {device}: each of {processes.ranks} processes takes a GPU of its own; give cuda")
    if (gpus := torch.cuda.device_count()) < processes.local_ranks:
        raise ConfigError(
            f"{processes.local_ranks} processes on a machine with {counted(gpus, 'GPU')}; start one for each, or give "
            "--device cpu"
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)


def reading_of(data: DataConfig) -> Reading:
    """Return how a run reads its images, for a configuration whose `rules` are resolved."""
    rules: Rules = RULES if data.rules == "auto" else data.rules
    return Reading(rules=rules, max_pixels=data.max_pixels, salvage_images=data.salvage_images)
