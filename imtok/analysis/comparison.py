"""Token sets side by side: bits per image first, and beside every metric of quality.

A best set is named only where better has a meaning and the sets were measured alike: statistics of use on as many
images of one size, metrics by one protocol. The caller sees to it that the images are the same ones. Fewer bits alone
are not better, and codes that hardly vary hardly change, so bits, idempotence and sensitivity have no best. One row
names the sets on the Pareto front of rate and distortion. With several codebooks the statistics of use are means over
them, beside the codebook where each is worst.
"""

# Axes: K codes, Q codebooks, h x w grid of the codes of an image.

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from operator import le
from typing import Any

from imtok.analysis.formatting import over_codebooks, significant, worst
from imtok.analysis.statistics import (
    Bits,
    Comparison,
    Duplicates,
    ErrorByCode,
    Neighbours,
    Pass,
    Perturbation,
    Runs,
    Statistics,
    definition,
)
from imtok.evaluation import METRICS, Metric, first_metric
from imtok.records import Record
from imtok.usage import Use

ABSENT, DOMINATED_BY = "-", "dominated by"


@dataclass(frozen=True)
class Row:
    """One statistic of all sets."""

    name: str
    values: tuple[str, ...]  # of each set; "-" where it has none
    beside: tuple[str, ...]  # to show with each value: its price in bits, or the codebook where it is worst; or ""
    best: int | None  # index of the best set; None where there is none
    definition: str

    def whole(self, index: int) -> str:
        """Return the value of one set with what is shown beside it."""
        return " ".join(filter(None, (self.values[index], self.beside[index])))


@dataclass(frozen=True)
class _Statistic:
    """A statistic to compare; `better` is 1 where more is better, -1 where less is better, and 0 otherwise."""

    name: str
    definition: str
    value: Callable[[Statistics], Any]
    show: Callable[[Any], str] = str
    better: int = 0
    alike: Callable[[Statistics], Hashable] = lambda each: (each.images, each.size)
    beside: Callable[[Statistics], str] = lambda _: ""

    def row(self, sets: Sequence[Statistics]) -> Row:
        """Compare the sets."""
        values = [self.value(each) for each in sets]
        shown = tuple(ABSENT if value is None else self.show(value) for value in values)
        beside = tuple("" if value is None else self.beside(each) for value, each in zip(values, sets, strict=True))
        return Row(self.name, shown, beside, self._best(sets, values, shown), self.definition)

    def _best(self, sets: Sequence[Statistics], values: Sequence[Any], shown: Sequence[str]) -> int | None:
        """Find the best set; None where another is shown with the same value or was measured otherwise."""
        found = {index: self.better * value for index, value in enumerate(values) if self.better and value is not None}
        if len(found) < 2 or len({self.alike(sets[index]) for index in found}) > 1:
            return None
        best = max(found, key=lambda index: found[index])
        return best if shown.count(shown[best]) == 1 else None


def comparison_rows(sets: Sequence[Statistics]) -> list[Row]:
    """Return the rows of a comparison, bits first, without statistics that no set has."""
    perturbations = dict.fromkeys(name for each in sets for name in _changed(each))
    rows = [each.row(sets) for each in (*_BITS, *map(_of_metric, METRICS.values()))]
    dominating = tuple(_dominating(each, sets) for each in sets)
    rows.append(Row(DOMINATED_BY, dominating, ("",) * len(sets), None, _DOMINATED))
    rows += [each.row(sets) for each in (*_STABILITY, *map(_of_perturbation, perturbations), *_USE, *_ORIGIN)]
    return [row for row in rows if any(value != ABSENT for value in row.values)]


def comparison_dict(sets: Sequence[Statistics]) -> dict[str, Any]:
    """Return the whole records of all sets, for JSON."""
    return Comparison(tokenizers=list(sets)).model_dump(mode="json")


def mutual_information(statistics: Statistics, side: Neighbours) -> str:
    """Format a range: from what a coder gains by the neighbour to the estimate, which is too high for few pairs."""
    gained = max(0.0, statistics.own_entropy_bits - side.coded_bits)
    return f"{gained:.2f} to {max(gained, side.mutual_information_corrected_bits):.2f}"


def alike_in_rate_and_distortion(statistics: Statistics) -> Hashable:
    """Return what two sets must share for a comparison of bits and first metric; None where a set has no metric.

    The number of images is part of it: they share the price that an adaptive coder pays for learning.
    """
    protocol = _protocol(statistics)
    return protocol and (protocol, statistics.images, statistics.size)


_DOMINATED = (
    "another set, of as many images of one size and measured by one protocol, that has at least this "
    f"{first_metric().label} at no more bits, raw and coded, and is ahead in one of the three; nobody: this one lies "
    "on the Pareto front of rate and distortion (Shannon, 1959)"
)


def _dominating(statistics: Statistics, sets: Sequence[Statistics]) -> str:
    alike, own = alike_in_rate_and_distortion(statistics), _rate_and_distortion(statistics)
    others = [each for each in sets if each is not statistics and alike_in_rate_and_distortion(each) == alike]
    if alike is None or not others:
        return ABSENT
    costs = [(each.name, _rate_and_distortion(each)) for each in others]
    ahead = [name for name, cost in costs if cost != own and all(map(le, cost, own))]
    return ", ".join(ahead) or "nobody"


def _rate_and_distortion(statistics: Statistics) -> tuple[float, float, float]:
    """Return distortion and both rates; less is better in each."""
    distortion = -(_measured(statistics, first_metric()) or 0.0)
    return distortion, statistics.bits.raw_per_image, statistics.bits.coded_per_image


def _at(path: str) -> Callable[[Statistics], Any]:
    """Return a function that reads the value at a dotted path of names; None where the path ends early."""

    def value(statistics: Statistics) -> Any:
        found: Any = statistics
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        return found

    return value


_reconstruction = _at("tokenizer.reconstruction")


def _measured(statistics: Statistics, metric: type[Metric]) -> float | None:
    """Return a metric of reconstructions, infinitely good where all images are exact; None where it is absent."""
    found = _reconstruction(statistics)
    if found is None or metric.name not in found.metrics:
        return None
    value: float | None = found.metrics[metric.name]
    return _sign(metric) * math.inf if value is None else value


def _sign(metric: type[Metric]) -> int:
    return 1 if metric.higher_is_better else -1


def _protocol(statistics: Statistics) -> Hashable:
    found = _reconstruction(statistics)
    return found and (found.images, found.size, found.protocol)


def _changed(statistics: Statistics) -> dict[str, float]:
    """Return the share of tokens that each perturbation changes."""
    found = statistics.tokenizer.sensitivity.disturbances if statistics.tokenizer else []
    return {each.name: each.changed for each in found}


def _same_after_a_pass(statistics: Statistics) -> float | None:
    passes = statistics.tokenizer.idempotence.passes if statistics.tokenizer else []
    return passes[0].same_as_first if passes else None


def _codes(statistics: Statistics) -> str:
    books = (statistics.num_codebooks,) if statistics.num_codebooks > 1 else ()
    return " x ".join(map(str, (*statistics.grid, *books))) + f" of {statistics.codebook_size:,}"


def _price(statistics: Statistics) -> str:
    return f"at {statistics.bits.raw_per_image:,.0f} bits"


def _field(name: str, record: type[Record], path: str, show: str, text: str = "", better: int = 0) -> _Statistic:
    """Compare the field of `record` at the end of a path."""
    return _Statistic(name, definition(record, path.split(".")[-1]) + text, _at(path), show.format, better)


def _of_use(name: str, field: str, show: str, better: int = 0) -> _Statistic:
    """Compare a statistic of `Use`, beside the codebook where it is worst."""

    def beside(statistics: Statistics) -> str:
        found, number = worst(statistics, field), len(statistics.codebooks)
        return f"(mean of {number} codebooks; worst: {found.codebook}, {show.format(found.value)})" if found else ""

    text = f"{definition(Use, field)}; mean over codebooks where there are several"
    return _Statistic(name, text, lambda each: over_codebooks(each, field), show.format, better, beside=beside)


def _of_metric(metric: type[Metric]) -> _Statistic:
    """Compare a metric of reconstructions, beside the bits that it costs."""
    return _Statistic(
        metric.label,
        metric.description,
        lambda each: _measured(each, metric),
        lambda value: metric.format(value if math.isfinite(value) else None),
        _sign(metric),
        _protocol,
        _price,
    )


def _of_perturbation(name: str) -> _Statistic:
    text = definition(Perturbation, "changed")
    return _Statistic(name, text, lambda each: _changed(each).get(name), "{:.1%} changed".format)


_BITS = (
    _field("bits per image, raw", Bits, "bits.raw_per_image", "{:,.0f}"),
    _field(
        "bits per image, coded", Bits, "bits.coded_per_image", "{:,.0f}", f": {definition(Bits, 'coded_per_token')}"
    ),
    _field("bits per pixel, coded", Bits, "bits.coded_per_pixel", "{:.4f}"),
)
_STABILITY = (
    _Statistic(
        "quantization error",
        f"{definition(ErrorByCode, 'relative')}, each set in its own latents",
        _at("tokenizer.error.relative"),
        significant,
        beside=_price,
    ),
    _Statistic(
        "same after a pass",
        f"{definition(Pass, 'same_as_first')}, after one pass of decode, round to uint8, encode",
        _same_after_a_pass,
        "{:.1%}".format,
    ),
)
_USE = (
    _of_use("usage", "usage", "{:.1%}", better=1),
    replace(_field("usage per 256 images", Runs, "per_256_images.usage", "{:.1%}", better=1), alike=_at("size")),
    _of_use("dead codes", "dead", "{:,.0f}"),
    _of_use("perplexity", "perplexity", "{:,.1f}"),
    _of_use("perplexity / K", "normalized_perplexity", "{:.3f}", better=1),
    _of_use("entropy", "entropy_corrected_bits", "{:.3f} bits"),
    _of_use("Gini", "gini", "{:.3f}", better=-1),
    _of_use("Zipf slope", "zipf_slope", "{:.2f}"),
    _Statistic(
        "mutual information",
        f"bits, of horizontal neighbours: from the entropy less {definition(Neighbours, 'coded_bits')}; to the "
        "estimate, which is too high where pairs are few a code",
        lambda statistics: statistics.horizontal and mutual_information(statistics, statistics.horizontal),
    ),
    _Statistic(
        "duplicates",
        f"{definition(Duplicates, 'duplicates')}, of those compared",
        lambda each: f"{each.duplicates.duplicates:,} of {each.duplicates.images:,}",
    ),
    _Statistic(
        "findings",
        definition(Statistics, "findings"),
        lambda each: ", ".join(finding.name for finding in each.findings) or "none",
    ),
)
_ORIGIN = (
    _field("images", Statistics, "images", "{:,}"),
    _field("size", Statistics, "size", "{} pixels"),
    _Statistic("codes", "h x w grid of an image's codes, x Q codebooks where there are several, of K", _codes),
    _field("quantizer", Statistics, "quantizer", "{}"),
)
