"""Images passed through a tokenizer, and compared with what comes back.

By default images are brought to shorter side S by Pillow's bicubic filter. The central S x S is encoded and decoded in
fp32 unless another precision is given, and both sides are compared as uint8 RGB. Beside tokens made with `--fit pad`,
images are padded to S x S as those were, and the padding is compared too. Usage counts the codes of these images.
"""

# Axes: B batch, S size.

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor

from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.images import Fit, Fitted, fit_image
from imtok.data.pixels.enlarging import Enlargement
from imtok.devices import Precision, autocast, deterministic
from imtok.errors import ImageError, SourceError
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import build_metrics
from imtok.evaluation.quality import Measurement, Quality
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, to_uint8


class Conditions(TypedDict, total=False):
    """Conditions of a measurement; `size` alone has to be given."""

    size: Required[int]  # side of the square, pixels
    fit: Fit  # how images become squares; crop by default
    precision: Precision  # in which the networks compute; fp32 by default
    batch_size: int  # 16 by default
    metrics: Sequence[Metric] | None  # new objects; by default those of all metrics that need no network
    progress: Callable[[int, int | None], None] | None  # takes (images measured, those in all)


def measure(tokenizer: Tokenizer, images: ImageCollection, **conditions: Unpack[Conditions]) -> Quality:
    """Measure a loaded tokenizer; raises SourceError where not one image can be read."""
    measurement, seen = measurement_of(tokenizer, images, **conditions)
    return quality_of(measurement, seen, inputs=len(images), precision=conditions.get("precision", "fp32"))


def measurement_of(
    tokenizer: Tokenizer, images: ImageCollection, **conditions: Unpack[Conditions]
) -> tuple[Measurement, Enlargement]:
    """Pass images through a loaded tokenizer and return what was seen, as one part of a set; there may be no image."""
    metrics, progress = conditions.get("metrics"), conditions.get("progress")
    measurement = new_measurement(tokenizer, build_metrics() if metrics is None else metrics)
    seen = Enlargement(conditions["size"], conditions.get("fit", "crop"))
    for batch in batches_of(images, seen, conditions.get("batch_size", 16)):
        add_batch(measurement, tokenizer, batch, conditions.get("precision", "fp32"))
        if progress:
            progress(measurement.images, len(images))
    return measurement, seen


def new_measurement(tokenizer: Tokenizer, metrics: Sequence[Metric]) -> Measurement:
    """Return an empty measurement with counts for the codes of a tokenizer."""
    return Measurement(metrics, num_codes=tokenizer.num_codes, num_codebooks=tokenizer.num_codebooks)


def add_batch(measurement: Measurement, tokenizer: Tokenizer, batch: Tensor, precision: Precision) -> None:
    """Encode and decode a batch (B, 3, S, S) uint8, and add it to a measurement."""
    with deterministic(tokenizer.device, precision), autocast(tokenizer.device, precision):
        codes = tokenizer.encode(batch)
        restored = to_uint8(tokenizer.decode(codes)).cpu()
    measurement.update(restored, batch, codes)


def quality_of(measurement: Measurement, seen: Enlargement, *, inputs: int, precision: Precision) -> Quality:
    """Return the quality on `inputs` images, unreadable ones included; raises SourceError where all are."""
    if not measurement.images:
        raise SourceError(f"no image of {inputs} can be read; `imtok encode` says why")
    skipped = inputs - measurement.images
    quality = measurement.quality(skipped=skipped, size=seen.size, precision=precision, fit=seen.fit)
    return replace(quality, enlarged=seen.enlarged, mean_enlargement=seen.mean_factor)


def batches_of(images: ImageCollection, seen: Enlargement, batch_size: int) -> Iterator[Tensor]:
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
