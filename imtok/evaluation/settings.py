"""The options that decide the metrics: requested by the caller, recorded in an evaluation's folder, or a default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import PIL
import torch
from pydantic import Field

from imtok.data.reading import MAX_PIXELS, RULES, Reading, Rules
from imtok.devices import Precision
from imtok.errors import ConfigError
from imtok.evaluation.measuring import RUN
from imtok.evaluation.metric import Metric
from imtok.records import Record
from imtok.tokenizer import Tokenizer

_T = TypeVar("_T")

_UNIT_SIZE = 512  # images, or a little more: whole runs of batches


class Options(TypedDict, total=False):
    """Options of an evaluation; one that is left out, or None, is as its folder has recorded it, or the default."""

    protocols: Sequence[str]  # by name; imtok by default
    output: str | Path | None  # folder in which units are saved; by default nothing is
    size: int | None  # side of the square, pixels; by default the tokenizers' own
    device: str | None  # by default a GPU where there is one
    precision: Precision | None  # in which the networks compute; fp32 by default
    batch_size: int | None  # 16 by default
    unit_size: int | None  # images of a list that are saved together; about 512 by default
    limit: int | None  # images: evenly spaced ones of a list, the first of a stream
    metrics: Sequence[str] | None  # by name, or ["all"] that fit the size; by default those that need no network
    weights: Mapping[str, Path]  # files of networks' weights by name; by default those in torch's cache
    fetch: bool  # fetch weights that are absent; True by default
    reading: Reading | None  # rules by which sources become images
    stream: bool  # read tars of this machine shard by shard, as those of URLs
    ranks: int  # processes that the protocols stand for, which decide the images that are repeated; 1 by default
    max_shard_failures: int  # shards of a stream that may fail; 0 by default
    codecs: bool  # WebP, JPEG and AVIF at the bytes of the first tokenizer's codes, as entries of their own
    images_out: str | Path | None  # folder for the worst, middle and best images of each entry
    samples: str | Path | None  # npz of all reconstructions; with several entries or protocols one each
    progress: Callable[[int, int | None], None] | None  # takes (images measured by this process, those in all or None)


class Settings(Record):
    """The options with every choice made, as a folder records them."""

    size: int = Field(description="side of the square, pixels")
    precision: Precision
    device: Literal["cpu", "cuda"]
    batch_size: int
    one_core: bool = Field(description="each batch is computed on one core, so that their number changes no bit")
    unit_size: int = Field(description="images of a list in a unit; a shard of a stream is one unit")
    limit: int | None
    streamed: bool
    images: str = Field(description="SHA-256 over the inputs as they are listed")
    rules: Rules
    max_pixels: int
    salvage_images: bool
    metrics: dict[str, str] = Field(description="SHA-256 of their networks' weights by name, empty without a network")
    versions: dict[str, str]

    @property
    def reading(self) -> Reading:
        """The rules by which sources become images."""
        return Reading(rules=self.rules, max_pixels=self.max_pixels, salvage_images=self.salvage_images)


# Options by the names of their fields, for messages.
_NAMES = {"images": "images", "streamed": "--stream", "rules": "rules", "versions": "packages", "one_core": "one core"}


def size_of(tokenizers: Sequence[Tokenizer], names: Sequence[str], requested: int | None) -> int:
    """Return the side of the square on which tokenizers are compared; raises ConfigError where it has to be given."""
    if requested is not None:
        return requested
    sizes = {name: tokenizer.config.size for name, tokenizer in zip(names, tokenizers, strict=True)}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ConfigError(f"sizes: {each}; metrics of two sizes cannot be compared: choose one by --size")
    return next(iter(sizes.values()))


def needed_size(metric: Metric | type[Metric]) -> str:
    """Say how large images have to be for a metric."""
    return f"{metric.label} needs {metric.smallest} pixels or more"


def check_size(size: int, tokenizers: Sequence[Tokenizer], metrics: Sequence[Metric]) -> None:
    """Raise ConfigError where a tokenizer or a metric cannot take squares of this size."""
    for metric in metrics:
        if size < metric.smallest:
            raise ConfigError(f"--size {size}: {needed_size(metric)}")
    for tokenizer in tokenizers:
        network = tokenizer.config.network
        if network.only_size is not None and size != network.only_size:
            raise ConfigError(f"--size {size}: the tokenizer takes images of {network.sizes}")
        if not network.takes(size, size):
            raise ConfigError(f"--size {size}: no multiple of the tokenizer's downsampling {tokenizer.downsample}")


def default_unit_size(batch_size: int) -> int:
    """Return the images of a unit: whole runs of batches, so that units cut no batch that a list would not."""
    run = RUN * batch_size
    return -(-_UNIT_SIZE // run) * run


def first_given(*values: _T | None) -> _T:
    """Return the first of the values that is not None."""
    return next(value for value in values if value is not None)


def reading_of(requested: Reading | None, recorded: Settings | None) -> Reading:
    """Return the requested rules of reading, or those recorded, or the default."""
    return requested or (recorded.reading if recorded else Reading(RULES, MAX_PIXELS))


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the last bits depend."""
    return {"torch": str(torch.__version__), "pillow": PIL.__version__}


def difference(recorded: Settings, now: Settings) -> str:
    """Name the first setting in which two evaluations differ, with both values; empty where they are equal."""
    before, after = recorded.model_dump(mode="json"), now.model_dump(mode="json")
    for field, value in before.items():
        if value != after[field]:
            name = _NAMES.get(field, f"--{field.replace('_', '-')}")
            return f"{name} {_shown(value)}, this call has {_shown(after[field])}"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text[:12]}".strip() for key, text in value.items()) or "none"
    return "other ones" if isinstance(value, str) and len(value) == 64 else str(value)
