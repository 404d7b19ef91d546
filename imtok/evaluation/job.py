"""The evaluation job: tokenizers measured on the images of SOURCEs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from imtok.data.addresses import is_remote
from imtok.data.collection import ImageCollection
from imtok.data.pixels.enlarging import Enlargement
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.single_pass import SinglePass
from imtok.devices import Precision, resolve_device
from imtok.errors import ConfigError
from imtok.evaluation.measuring import add_batch, batches_of, measure, new_measurement, quality_of
from imtok.evaluation.metrics import build_metrics, open_metrics
from imtok.evaluation.quality import Quality
from imtok.tokenizer import load


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
        measurement, seen, inputs = new_measurement(tokenizer, measured), Enlargement(size), 0
        for images in shards:
            inputs += len(images)
            for batch in batches_of(images, seen, batch_size):
                add_batch(measurement, tokenizer, batch, precision)
                if progress:
                    progress(measurement.images, None)
        quality = quality_of(measurement, seen, inputs=inputs + len(reader.unreadable), precision=precision)
        return replace(quality, failed_shards=shards.failures)
    images = ImageCollection.open(sources, reading)
    if limit is not None:
        images = images.subsample(limit)
    return measure(
        tokenizer, images, size=size, precision=precision, batch_size=batch_size, metrics=measured, progress=progress
    )
