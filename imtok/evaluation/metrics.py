"""The list of metrics; whatever shows or logs metrics walks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from imtok.errors import ConfigError
from imtok.evaluation.metric import Metric
from imtok.evaluation.perceptual import LPIPS
from imtok.evaluation.pixels import PSNR, SSIM

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    import torch
    from torch import nn

METRICS: dict[str, type[Metric]] = {metric.name: metric for metric in (PSNR, SSIM, LPIPS)}
BEST_BY = ("lpips", "psnr")  # the first of these that was measured decides which tokenizer of a run is the best


def first_metric() -> type[Metric]:
    """Return the metric that stands first everywhere and is compared with bits; higher is better for it."""
    return next(iter(METRICS.values()))


def build_metrics(networks: Mapping[str, nn.Module] | None = None) -> list[Metric]:
    """Build the metrics that are measured by default.

    These need no network, or have theirs in `networks` under the name in `needs`.
    """
    found = networks or {}
    defaults = [metric for metric in METRICS.values() if metric.by_default]
    usable = [metric for metric in defaults if not metric.needs or metric.needs in found]
    return [metric(found[metric.needs]) if metric.needs else metric() for metric in usable]


def open_metrics(names: Iterable[str], device: torch.device) -> list[Metric]:
    """Build the metrics of these names, with their networks on `device`.

    Raises ConfigError on a name that is not in the list and on a metric whose network is not at hand.
    """
    built = []
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"metric {name}: unknown, expected one of {', '.join(METRICS)}")
        if reason := METRICS[name].unavailable():
            raise ConfigError(f"metric {name}: {reason}")
        network = METRICS[name].open_network()
        built.append(METRICS[name](network.to(device) if network is not None else None))
    return built
