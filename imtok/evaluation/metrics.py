"""The list of metrics, and how they are built; whatever shows or logs metrics walks the list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imtok.errors import ConfigError
from imtok.evaluation.features import FID, CleanFID, LegacyPytorchFID, Precision, Recall, share_rows
from imtok.evaluation.metric import Metric
from imtok.evaluation.perceptual import LPIPS, AlexLPIPS
from imtok.evaluation.pixels import MSSSIM, PSNR, SSIM
from imtok.evaluation.weights import WeightsFile, find_weights

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    import torch
    from torch import nn

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (PSNR, SSIM, MSSSIM, LPIPS, AlexLPIPS, FID, CleanFID, LegacyPytorchFID, Precision, Recall)
}
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
    """Build the metrics of these names, with their networks on `device`; nothing is fetched.

    Raises ConfigError on a name that is not in the list and on a metric whose network is not at hand.
    """
    built: list[Metric] = []
    networks: dict[str, nn.Module | None] = {}
    for metric in map(find_metric, names):
        if reason := metric.unavailable():
            raise ConfigError(f"metric {metric.name}: {reason}")
        if metric.needs not in networks:
            network = metric.open_network()
            networks[metric.needs] = network.to(device) if network is not None else None
        built.append(metric(networks[metric.needs]))
    share_rows(built)
    return built


def find_metric(name: str) -> type[Metric]:
    """Return the metric of this name; raises ConfigError where there is none."""
    if name not in METRICS:
        raise ConfigError(f"metric {name}: unknown, expected one of {', '.join(METRICS)}")
    return METRICS[name]


@dataclass(frozen=True)
class OpenedMetrics:
    """The metrics that can be measured here, and why others cannot."""

    metrics: list[Metric]
    weights: dict[str, WeightsFile] = field(default_factory=dict)  # those that were read, by name
    missing: dict[str, str] = field(default_factory=dict)  # by name of the metric: one sentence


def open_available(
    metrics: Iterable[type[Metric]],
    device: torch.device,
    *,
    weights: Mapping[str, Path] | None = None,
    fetch: bool = True,
) -> OpenedMetrics:
    """Build metrics with their networks on `device`, and leave out those whose weights cannot be had.

    `weights` names files by the names of `imtok.evaluation.weights.WEIGHTS`; others are taken from torch's cache, with
    `fetch` fetched into it. A network is opened once, and metrics of one network share it.
    """
    opened, named = OpenedMetrics([]), weights or {}
    networks: dict[str, nn.Module] = {}
    reasons: dict[str, str] = {}  # by name of the network or the weights, so that nothing fails twice
    for metric in metrics:
        key = metric.weights or metric.needs
        if metric.needs and metric.needs not in networks and key not in reasons:
            try:
                networks[metric.needs] = _opened(metric, opened.weights, named, fetch=fetch).to(device)
            except ConfigError as error:
                reasons[key] = str(error)
        if not metric.needs:
            opened.metrics.append(metric())
        elif metric.needs in networks:
            opened.metrics.append(metric(networks[metric.needs]))
        else:
            opened.missing[metric.name] = reasons[key]
    share_rows(opened.metrics)
    return opened


def _opened(
    metric: type[Metric], found: dict[str, WeightsFile], named: Mapping[str, Path], *, fetch: bool
) -> nn.Module:
    """Open the network of a metric, and enter its weights in `found`."""
    if metric.weights and metric.weights not in found:
        found[metric.weights] = find_weights(metric.weights, named, needed_by=metric.label, fetch=fetch)
    network = metric.open_network(found[metric.weights].path) if metric.weights else metric.open_network()
    assert network is not None, "a metric that needs a network opens one"
    return network


def empty_copies(metrics: Sequence[Metric]) -> list[Metric]:
    """Build metrics of the same classes, on the same networks, that have seen no image and share rows alike."""
    copies = [metric.fresh() for metric in metrics]
    share_rows(copies)
    return copies
