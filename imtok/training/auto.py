"""A configuration chosen from the images: their sizes decide size, downsampling and crops."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from imtok.counted import counted
from imtok.data.collection import ImageCollection
from imtok.data.images import image_size
from imtok.errors import ImageError, SourceError

_SAMPLED = 200
_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Choice:
    """The chosen values, and the facts about the images behind them."""

    values: dict[str, Any]
    facts: str


def choose(images: ImageCollection, *, gpu: bool, of_first_shard: bool = False) -> Choice:
    """Choose values for `load_train_config` that suit the sizes of the images and the device.

    The facts say so where the images are those `of_first_shard` alone.

    The training size is the largest of 32, 64, 128, 256 that the median image fills. Small images get downsampling 4,
    others 8, so that an image becomes 64 to 1024 tokens. FSQ has no codebook that could collapse.
    """
    shorter = _shorter_sides(images)
    median = int(statistics.median(shorter))
    size = max((side for side in _SIZES if side <= median), default=_SIZES[0])
    downsample = 4 if size <= 64 else 8
    values: dict[str, Any] = {
        "tokenizer": {
            "size": size,
            "network": {"patch_size": downsample // 2, "channels": [128, 256] if gpu else [64, 128]},
            "quantizer": {"kind": "fsq", "levels": [8, 8, 8, 6, 5]},
        },
        "data": {"crop": min(size, 96)},
        "images": _length(size, gpu),
        "batch_size": 64 if size <= 64 else 16,
    }
    count = ("first shard: " if of_first_shard else "") + counted(len(images), "image")
    return Choice(values, f"{count}, shorter side {min(shorter)} to {max(shorter)} px, median {median}")


def _length(size: int, gpu: bool) -> int:
    """Return the number of training images that take some minutes on two CPU cores, or some on a GPU."""
    on_cpu = 120_000 if size <= 64 else 60_000
    return on_cpu * 20 if gpu else on_cpu


def _shorter_sides(images: ImageCollection) -> list[int]:
    sides = []
    sampled = images.subsample(_SAMPLED)
    for index in range(len(sampled)):
        with suppress(ImageError, SourceError):
            sides.append(min(image_size(sampled.read(index), images.reading)))
    if not sides:
        raise SourceError(f"no image of {min(len(images), _SAMPLED)} that were opened can be read; check the files")
    return sides
