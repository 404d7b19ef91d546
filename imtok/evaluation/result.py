"""The result of an evaluation for one tokenizer under one protocol, as a record and as JSON, and what stands beside it.

Metrics of different protocols, sizes, images or weights say nothing about each other, so they are refused in one table
of tokenizers. One tokenizer under several protocols is a table of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from imtok.config.origin import Origin
from imtok.errors import ConfigError
from imtok.evaluation.metrics import METRICS, first_metric
from imtok.evaluation.rates import Rate
from imtok.records import Record

RESULTS = "results.json"
_FORMAT, _VERSION = "imtok-results", 1

# What two results must have in common to stand in one table of tokenizers, by the words for a message.
_COMMON = {
    "protocol_name": "protocol",
    "size": "size",
    "precision": "precision",
    "ranks": "ranks",
    "images": "number of images",
    "images_sha256": "images",
}


_CODED = str(Rate.model_fields["coded_bits_per_image"].description)


class Result(Record):
    """Metrics of one tokenizer under one protocol, with all that decides them."""

    tokenizer: str = Field(description="tokenizer as it was named, or a codec")
    fingerprint: str = Field("", description="of what decides its codes")
    files_sha256: str = Field("", description="SHA-256 over its files, the decoder included")
    origin: Origin | None = Field(None, description="published checkpoint that it was imported from")
    protocol_name: str
    protocol: str = Field(description="the protocol in a line, with how each metric is computed")
    ranks: int = Field(1, description="processes that the protocol stands for, which decide the images it repeats")
    images: int
    images_sha256: str = Field("", description="SHA-256 over the encoded images that were measured, in their order")
    skipped: int = Field(description="images that could not be read")
    failed_shards: dict[str, str] = Field({}, description="reasons by name, of a stream")
    size: int = Field(description="side of the square, pixels")
    precision: str
    metrics: dict[str, float | None] = Field(description="by name; null for an infinite value")
    intervals: dict[str, tuple[float, float]] = Field({}, description="95 %, of metrics that are means over images")
    refused: dict[str, str] = Field({}, description="metrics without a number, and why")
    weights: dict[str, str] = Field({}, description="SHA-256 of the networks' weights by metric")
    exact: int = Field(description="images that come back exactly")
    bits_per_image: float
    coded_bits_per_image: float | None = Field(None, description=_CODED)
    larger: int | None = Field(None, description="of a codec, images whose file in the lowest quality is too large")
    usage: dict[str, Any] = Field(description="use of the codes, as `imtok stats` defines it; a codec has none")
    enlarged: int = Field(0, description="images smaller than the square")
    mean_enlargement: float | None = Field(None, description="mean factor of their sides")
    encode_images_per_second: float | None = Field(None, description="network alone, of this process")
    decode_images_per_second: float | None = Field(None, description="network alone, of this process")

    @property
    def bits_per_pixel(self) -> float:
        """Bits a pixel of the codes, each of log2 K bits."""
        return self.bits_per_image / self.size**2

    def as_dict(self, *, times: bool = True) -> dict[str, Any]:
        """Return everything by name as `imtok eval --json` prints it; `times` are what changes from run to run."""
        content = self.model_dump(mode="json")
        metrics, usage = content.pop("metrics"), content.pop("usage")
        first = first_metric().name  # stands before `exact`
        head = ("images", "skipped", *(["failed_shards"] if self.failed_shards else []), "size", "precision")
        lines = {name: content.pop(name) for name in head}
        content.pop("failed_shards", None)
        lines |= {first: metrics.pop(first)} if first in metrics else {}
        lines |= {"exact": content.pop("exact"), **metrics, "bits_per_image": content.pop("bits_per_image"), **usage}
        content = {name: value for name, value in content.items() if times or name not in _TIMES}
        protocol = content.pop("protocol")
        return {**lines, **content, "protocol": protocol}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """Build from what `as_dict` returned; raises ValueError where it cannot."""
        known = cls.model_fields.keys() - {"metrics", "usage"}  # these two are spread out; one of the latter is `usage`
        fields = {name: value for name, value in content.items() if name in known}
        others = {name: value for name, value in content.items() if name not in known}
        metrics = {name: others.pop(name) for name in METRICS if name in others}
        return cls.model_validate({**fields, "metrics": metrics, "usage": others})


_TIMES = ("encode_images_per_second", "decode_images_per_second")


def results_to_bytes(results: Sequence[Result]) -> bytes:
    """Return results as the bytes of results.json."""
    content = {"format": _FORMAT, "version": _VERSION, "results": [result.as_dict() for result in results]}
    return (json.dumps(content, indent=2) + "\n").encode()


def read_results(path: str | Path) -> list[Result]:
    """Read the results of an evaluation's folder, of its results.json, or of what `imtok eval --json` printed.

    Raises ConfigError where there are none.
    """
    file = Path(path)
    file = file / RESULTS if file.is_dir() else file
    try:
        content = json.loads(file.read_bytes())
        rows = content.get("results", [content])
        return [Result.from_dict(row) for row in rows]
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror or error}); run its `imtok eval` again") from error
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ConfigError(f"{file}: holds no results of imtok eval; give a folder of `imtok eval -o`") from error


def is_saved(path: str | Path) -> bool:
    """Say whether a path names saved results: a JSON file, or a folder of `imtok eval -o`."""
    path = Path(path)
    return (path.suffix == ".json" and path.is_file()) or (path / RESULTS).is_file()


def check_comparable(results: Sequence[Result]) -> None:
    """Raise ConfigError, naming both, where two results cannot stand in one table of tokenizers."""
    first, *others = results
    for other in others:
        for name, words in _COMMON.items():
            one, two = getattr(first, name), getattr(other, name)
            if one != two and one and two:
                raise _apart(first, other, words, one, two)
        for metric in first.weights.keys() & other.weights.keys():
            if first.weights[metric] != other.weights[metric]:
                label = METRICS[metric].label if metric in METRICS else metric
                raise _apart(first, other, f"weights of {label}", first.weights[metric], other.weights[metric])


def beside_each_other(measured: Sequence[Result], saved: Sequence[Result]) -> list[Result]:
    """Return results with saved ones behind them, each tokenizer under a protocol once."""
    found: dict[tuple[str, str], Result] = {}
    for result in (*measured, *saved):
        found.setdefault((result.protocol_name, result.files_sha256 or result.tokenizer), result)
    return list(found.values())


def tables(results: Sequence[Result]) -> list[list[Result]]:
    """Divide results into tables: those of one tokenizer are one, those of several are one for each protocol.

    Raises ConfigError, naming both, where two results of a table cannot be compared, and where a protocol of one
    tokenizer is not that of another.
    """
    protocols: dict[str, list[Result]] = {}
    for result in results:
        protocols.setdefault(result.protocol_name, []).append(result)
    tokenizers = {result.files_sha256 or result.tokenizer for result in results}
    if len(tokenizers) == 1:
        return [list(results)]
    for table in protocols.values():
        if len(table) < len(tokenizers):
            there = {result.files_sha256 or result.tokenizer for result in table}
            missing = next(result for result in results if (result.files_sha256 or result.tokenizer) not in there)
            check_comparable([table[0], missing])
        check_comparable(table)
    return list(protocols.values())


def _apart(first: Result, other: Result, words: str, one: object, two: object) -> ConfigError:
    shown = [str(value)[:12] for value in (one, two)]
    return ConfigError(
        f"{first.tokenizer} has {words} {shown[0]}, {other.tokenizer} has {shown[1]}; their metrics cannot stand in "
        "one table: measure both alike"
    )
