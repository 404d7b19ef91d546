"""The protocol by which a tokenizer is measured.

Images are brought to shorter side S by Pillow's bicubic filter. The central S x S is encoded and decoded in fp32 unless
another precision is given, and both sides are compared as uint8 RGB. Beside tokens made with `--fit pad`, images are
padded to S x S as those were, and the padding is compared too. Usage counts the codes of these images.
"""

# Axes: B batch, S size, Q codebooks, K codes.

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imtok.cores import usable_cores
from imtok.data.addresses import is_remote
from imtok.data.collection import ImageCollection
from imtok.data.images import Fit, Fitted, fit_image
from imtok.data.pixels.enlarging import Enlargement
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.single_pass import SinglePass
from imtok.devices import Precision, autocast, deterministic, resolve_device
from imtok.errors import ConfigError, ImageError, SourceError
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import METRICS, build_metrics, first_metric, open_metrics
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, load, to_uint8
from imtok.usage import CodebookUsage, count_by_codebook


@dataclass(frozen=True)
class Quality:
    """Reconstruction metrics and codebook use of a tokenizer on a set of images."""

    images: int
    skipped: int  # images that could not be read
    size: int  # side of the square, pixels
    precision: Precision
    metrics: Mapping[str, float]  # by name; PSNR is infinite where all images come back exactly
    exact: int  # images that come back exactly
    bits_per_image: float
    usage: CodebookUsage
    fit: Fit = "crop"  # how images became squares
    enlarged: int = 0  # images smaller than the square
    mean_enlargement: float | None = None  # mean factor of their sides; None where there is none
    failed_shards: Mapping[str, str] = field(default_factory=dict)  # reasons by name, of a stream

    @property
    def psnr(self) -> float:
        """PSNR in dB."""
        return self.metrics["psnr"]

    @property
    def ssim(self) -> float:
        """SSIM in [-1, 1]."""
        return self.metrics["ssim"]

    @property
    def lpips(self) -> float | None:
        """LPIPS, where it was measured."""
        return self.metrics.get("lpips")

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics for JSON, with None in place of an infinite value."""
        return {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}

    @property
    def protocol(self) -> str:
        """The protocol in one line, to print beside the metrics."""
        square = {
            "crop": f"shorter side {self.size}, centre crop {self.size}x{self.size}",
            "pad": f"longer side {self.size}, edges repeated to {self.size}x{self.size} and compared too",
        }
        methods = "; ".join(f"{METRICS[name].label} {METRICS[name].method}" for name in self.metrics)
        return f"PIL bicubic to {square[self.fit]}, {self.precision}, uint8 RGB; {methods}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, as `imtok eval --json` prints it; an infinite value is null."""
        values = self.values
        first = first_metric().name  # stands before `exact`
        return {
            "images": self.images,
            "skipped": self.skipped,
            **({"failed_shards": dict(self.failed_shards)} if self.failed_shards else {}),
            "size": self.size,
            "precision": self.precision,
            **({first: values.pop(first)} if first in values else {}),
            "exact": self.exact,
            **values,
            "bits_per_image": self.bits_per_image,
            **{name: value for name, value in self.usage.as_dict().items() if name != "images"},
            "protocol": self.protocol,
        }


class Measurement:
    """Metrics and code counts of a set of images that passes in batches; those of parts of a set merge."""

    def __init__(self, metrics: Sequence[Metric], *, num_codes: int, num_codebooks: int = 1) -> None:
        self.metrics = metrics
        self.counts = np.zeros((num_codebooks, num_codes), np.int64)  # (Q, K)
        self.images = self.exact = 0

    def update(self, restored: Tensor, originals: Tensor, codes: Tensor) -> None:
        """Add a batch: two (B, 3, S, S) uint8, and the codes (B, h, w) or (B, h, w, Q) between them."""
        for metric in self.metrics:
            metric.update(restored, originals)
        self.counts += count_by_codebook([codes.cpu().numpy()], self.counts.shape[1], len(self.counts))
        self.images += len(originals)
        self.exact += int((restored == originals).flatten(1).all(dim=1).sum())

    def merge(self, other: Measurement) -> None:
        """Add all that `other` has seen, which has the same metrics in the same order."""
        for metric, theirs in zip(self.metrics, other.metrics, strict=True):
            metric.merge(theirs)
        self.counts += other.counts
        self.images += other.images
        self.exact += other.exact

    def quality(self, *, skipped: int, size: int, precision: Precision = "fp32", fit: Fit = "crop") -> Quality:
        """Compute all metrics; there must have been an image."""
        usage = CodebookUsage.of_codebooks(self.counts, self.images)
        return Quality(
            images=self.images,
            skipped=skipped,
            size=size,
            precision=precision,
            metrics={metric.name: metric.compute() for metric in self.metrics},
            exact=self.exact,
            bits_per_image=usage.tokens / self.images * math.log2(usage.codebook_size),
            usage=usage,
            fit=fit,
        )


def evaluate(
    tokenizer_path: str | Path,
    sources: Sequence[str | Path],
    *,
    size: int | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 16,
    limit: int | None = None,
    metrics: Sequence[str] | None = None,
    reading: Reading = DEFAULT_READING,
    stream: bool = False,
    max_shard_failures: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Quality:
    """Measure a tokenizer folder on the images of SOURCEs.

    `size` is the tokenizer's own by default, `metrics` are all that need no network. URLs, and with `stream` tars of
    this machine, are read shard by shard in their order, and `limit` takes the first of their images. Raises
    ConfigError on a size or metric that cannot be measured, ShardFailure where more than `max_shard_failures` fail.
    """
    tokenizer = load(tokenizer_path).to(resolve_device(device))
    size = size or tokenizer.config.size
    measured = build_metrics() if metrics is None else open_metrics(metrics, tokenizer.device)
    for metric in measured:
        if size < metric.smallest:
            raise ConfigError(f"--size {size}: {metric.label} needs {metric.smallest} pixels or more")
    if size % tokenizer.downsample:
        raise ConfigError(f"--size {size}: no multiple of the tokenizer's downsampling {tokenizer.downsample}")
    if stream or any(is_remote(str(source)) for source in sources):
        reader = ShardReader(find_shards(sources, reading), reading)
        shards = SinglePass(reader, allowed_failures=max_shard_failures, limit=limit)
        measurement, seen = _new_measurement(tokenizer, measured), Enlargement(size)
        count = _pass(tokenizer, shards, None, measurement, seen, precision, batch_size, progress)
        quality = _quality(measurement, seen, count + len(reader.unreadable), precision)
        return replace(quality, failed_shards=shards.failures)
    images = ImageCollection.open(sources, reading)
    if limit is not None:
        images = images.subsample(limit)
    return measure(
        tokenizer, images, size=size, precision=precision, batch_size=batch_size, metrics=measured, progress=progress
    )


def measure(
    tokenizer: Tokenizer,
    images: ImageCollection,
    *,
    size: int,
    fit: Fit = "crop",
    precision: Precision = "fp32",
    batch_size: int = 16,
    metrics: Sequence[Metric] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Quality:
    """Measure a loaded tokenizer; raises SourceError where not one image can be read.

    `metrics` are new objects, by default those of all metrics that need no network.
    """
    measurement, seen = measurement_of(
        tokenizer,
        images,
        size=size,
        fit=fit,
        precision=precision,
        batch_size=batch_size,
        metrics=metrics,
        progress=progress,
    )
    return _quality(measurement, seen, len(images), precision)


def measurement_of(
    tokenizer: Tokenizer,
    images: ImageCollection,
    *,
    size: int,
    fit: Fit = "crop",
    precision: Precision = "fp32",
    batch_size: int = 16,
    metrics: Sequence[Metric] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[Measurement, Enlargement]:
    """Pass images through a loaded tokenizer and return what was seen, as one part of a set; there may be no image."""
    measurement = _new_measurement(tokenizer, build_metrics() if metrics is None else metrics)
    seen = Enlargement(size, fit)
    _pass(tokenizer, [images], len(images), measurement, seen, precision, batch_size, progress)
    return measurement, seen


def _new_measurement(tokenizer: Tokenizer, metrics: Sequence[Metric]) -> Measurement:
    return Measurement(metrics, num_codes=tokenizer.num_codes, num_codebooks=tokenizer.num_codebooks)


def _pass(
    tokenizer: Tokenizer,
    lists: Iterable[ImageCollection],
    total: int | None,
    measurement: Measurement,
    seen: Enlargement,
    precision: Precision,
    batch_size: int,
    progress: Callable[[int, int | None], None] | None,
) -> int:
    """Pass lists of images, `total` in all where that is known, into `measurement` and `seen`; return their number."""
    count = 0
    for images in lists:
        count += len(images)
        for batch in _batches(images, seen, batch_size):
            with deterministic(tokenizer.device, precision), autocast(tokenizer.device, precision):
                codes = tokenizer.encode(batch)
                restored = to_uint8(tokenizer.decode(codes)).cpu()
            measurement.update(restored, batch, codes)
            if progress:
                progress(measurement.images, total)
    return count


def _quality(measurement: Measurement, seen: Enlargement, count: int, precision: Precision) -> Quality:
    """Return the quality on `count` images, unreadable ones included; raises SourceError where all are."""
    if not measurement.images:
        raise SourceError(f"no image of {count} can be read; `imtok encode` says why")
    skipped = count - measurement.images
    quality = measurement.quality(skipped=skipped, size=seen.size, precision=precision, fit=seen.fit)
    return replace(quality, enlarged=seen.enlarged, mean_enlargement=seen.mean_factor)


def _batches(images: ImageCollection, seen: Enlargement, batch_size: int) -> Iterator[Tensor]:
    """Yield the readable images as (B, 3, S, S) uint8, decoded ahead on all cores, and count them in `seen`.

    Batches are cut from runs of four batches of inputs, so that an unreadable image shortens one batch of its run.
    """
    run = 4 * batch_size
    pictures = in_order(
        lambda index: _fitted(images, index, seen.size, seen.fit),
        range(len(images)),
        workers=usable_cores(),
        ahead=run,
        one_core=False,  # the networks compute meanwhile, on all cores
    )
    with closing(pictures):
        while read := list(itertools.islice(pictures, run)):
            readable = [fitted.pixels for fitted in read if fitted is not None]
            for fitted in filter(None, read):
                seen.add(*fitted.original)
            for first in range(0, len(readable), batch_size):
                yield torch.stack(readable[first : first + batch_size])


def _fitted(images: ImageCollection, index: int, size: int, fit: Fit) -> Fitted | None:
    try:
        return fit_image(images.picture(index), size, fit)
    except (ImageError, SourceError):
        return None
