"""Images passed through a tokenizer, and compared with what comes back.

By default images are brought to shorter side S by Pillow's bicubic filter. The central S x S is encoded and decoded in
fp32 unless another precision is given, and both sides are compared as uint8 RGB. Beside tokens made with `--fit pad`,
images are padded to S x S as those were, and the padding is compared too. Usage counts the codes of these images.
"""

# Axes: B batch, S size.

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Required, TypedDict, Unpack

import torch
from PIL.Image import Image
from torch import Tensor

from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.images import Fit, decode_image, fit_image
from imtok.data.pixels.enlarging import Enlargement
from imtok.devices import Precision, autocast, deterministic
from imtok.errors import ImageError, SourceError
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import build_metrics
from imtok.evaluation.quality import Measurement, Quality
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, to_uint8

RUN = 4  # batches of inputs that are read together


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
    size, fit = conditions["size"], conditions.get("fit", "crop")
    metrics, precision = conditions.get("metrics"), conditions.get("precision", "fp32")
    measurement = new_measurement(tokenizer, build_metrics() if metrics is None else metrics)
    seen, progress = Enlargement(size, fit), conditions.get("progress")
    for batch in batches_of(
        images, lambda picture: fit_image(picture, size, fit).pixels, conditions.get("batch_size", 16)
    ):
        for original in batch.sizes:
            seen.add(*original)
        with deterministic(tokenizer.device, precision), autocast(tokenizer.device, precision):
            codes = tokenizer.encode(batch.pixels)
            restored = to_uint8(tokenizer.decode(codes)).cpu()
        measurement.update(restored, batch.pixels, codes)
        if progress:
            progress(measurement.images, len(images))
    return measurement, seen


def new_measurement(tokenizer: Tokenizer, metrics: Sequence[Metric]) -> Measurement:
    """Return an empty measurement with counts for the codes of a tokenizer."""
    return Measurement(metrics, num_codes=tokenizer.num_codes, num_codebooks=tokenizer.num_codebooks)


def quality_of(measurement: Measurement, seen: Enlargement, *, inputs: int, precision: Precision) -> Quality:
    """Return the quality on `inputs` images, unreadable ones included; raises SourceError where all are."""
    if not measurement.images:
        raise SourceError(f"no image of {inputs} can be read; `imtok encode` says why")
    skipped = inputs - measurement.images
    quality = measurement.quality(skipped=skipped, size=seen.size, precision=precision, fit=seen.fit)
    return replace(quality, enlarged=seen.enlarged, mean_enlargement=seen.mean_factor)


@dataclass(frozen=True)
class Batch:
    """Readable images of a list, brought to squares."""

    pixels: Tensor  # (B, 3, S, S) uint8
    positions: list[int]  # (B,) in the list
    sizes: list[tuple[int, int]]  # (B,) heights and widths before they became squares
    digests: list[int]  # (B,) the first 8 bytes of the SHA-256 of the encoded images


def batches_of(
    images: ImageCollection, to_square: Callable[[Image], Tensor], batch_size: int
) -> Generator[Batch, None, None]:
    """Yield the readable images, decoded ahead on all cores and brought to squares (3, S, S) uint8 by `to_square`.

    Batches are cut from runs of four batches of inputs, so that an unreadable image shortens one batch of its run.
    """
    run = RUN * batch_size
    pictures = in_order(
        lambda index: _read(images, index, to_square),
        range(len(images)),
        workers=usable_cores(),
        ahead=run,
        one_core=False,  # the networks compute meanwhile, on all cores
    )
    with closing(pictures):
        while read := list(itertools.islice(pictures, run)):
            readable = [image for image in read if image is not None]
            for first in range(0, len(readable), batch_size):
                pixels, positions, sizes, digests = zip(*readable[first : first + batch_size], strict=True)
                yield Batch(torch.stack(pixels), list(positions), list(sizes), list(digests))


def _read(
    images: ImageCollection, index: int, to_square: Callable[[Image], Tensor]
) -> tuple[Tensor, int, tuple[int, int], int] | None:
    """Read one image: its square, index, height and width, and digest; None where it cannot be read."""
    try:
        data = images.read(index)
        picture = decode_image(data, images.reading)
        square = to_square(picture)
    except (ImageError, SourceError):
        return None
    digest = int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)
    return square, index, (picture.height, picture.width), digest
