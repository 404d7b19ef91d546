"""The numbers of metrics over all images, as a protocol takes means: with repeated images, or as means of batches."""

# Axes: N images.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from imtok.evaluation.metric import ImageMean, Metric
from imtok.evaluation.metrics import empty_copies
from imtok.evaluation.protocols import Protocol


def aggregated(metrics: Sequence[Metric], protocol: Protocol, images: int, ranks: int) -> dict[str, float]:
    """Return the numbers of metrics over `images` images; without repeated images and short batches, as `compute`.

    A mean over images weighs each as `Protocol.weights` says. Any other metric takes the rows of repeated images again.
    `ranks` are the processes that the protocol stands for. A metric that refuses the images is left out.
    """
    weights, order = protocol.weights(images, ranks), protocol.order(images, ranks)
    able = [metric for metric in metrics if not metric.refusal()]
    if weights is None:
        return {metric.name: metric.compute() for metric in able}
    repeated = {metric.name: metric for metric in (_repeated(metrics, order) if len(order) > images else metrics)}
    shares = torch.from_numpy(weights)
    return {
        metric.name: _weighed(metric, shares) if isinstance(metric, ImageMean) else repeated[metric.name].compute()
        for metric in able
    }


def _weighed(metric: ImageMean, shares: Tensor) -> float:
    """Return the mean with these shares (N,) float64; PSNR leaves exact images out, as it does elsewhere."""
    values = metric.values
    finite = values.isfinite()
    whole = float(shares[finite].sum())
    return float((values[finite] * shares[finite]).sum()) / whole if whole else math.inf


def _repeated(metrics: Sequence[Metric], order: Sequence[int]) -> list[Metric]:
    """Return metrics that have seen the images in this order."""
    copies = empty_copies(metrics)
    for metric, copy in zip(metrics, copies, strict=True):
        copy.restore({name: rows[order] for name, rows in metric.state().items()})
    return copies
