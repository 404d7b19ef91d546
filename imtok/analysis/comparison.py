"""Token sets side by side: bits per image first, and beside every figure of quality.

A best one is named only where better means something and the sets were measured alike: figures of use on as many images
of one size, figures of pictures by one protocol. That the images are the same ones is for the caller to see to. Fewer
bits alone are not better, and codes that hardly vary are hardly disturbed, so bits, idempotence and sensitivity have no
best. What bits and quality say together is a row of its own: who lies on the Pareto front of rate and distortion.
With several codebooks the figures of use are means over them, beside the codebook where each is worst.
"""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from imtok.analysis.formatting import over_codebooks, significant, worst
from imtok.analysis.statistics import (
    Bits,
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
from imtok.usage import Use

ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One figure of all sets."""

    key: str  # stays the same whatever the name is
    name: str
    values: tuple[str, ...]  # one a set, "-" where it has none
    beside: tuple[str, ...]  # what belongs to each value: its price in bits, or the codebook where it is worst; or ""
    best: int | None  # which set is best; None where that cannot be said
    definition: str

    def whole(self, place: int) -> str:
        """The value of one set with what belongs to it."""
        return " ".join(filter(None, (self.values[place], self.beside[place])))


@dataclass(frozen=True)
class _Kind:
    """A figure: what it means, where it is found, how it is shown, which way is better: 1 more, -1 less, 0 neither."""

    key: str
    name: str
    definition: str
    value: Callable[[Statistics], Any]
    show: Callable[[Any], str] = str
    better: int = 0
    alike: Callable[[Statistics], Hashable] = lambda statistics: (statistics.images, statistics.size)
    beside: Callable[[Statistics], str] = lambda _: ""


def comparison_rows(sets: Sequence[Statistics]) -> list[Row]:
    """The rows of a comparison, bits first; figures that no set has are left out."""
    names = dict.fromkeys(each.name for statistics in sets for each in _perturbations(statistics))
    rows = [_row(kind, sets) for kind in (*_BITS, *map(_of_metric, METRICS.values()))]
    rows.append(_dominated_row(sets))
    rows += [_row(kind, sets) for kind in (*_STABILITY, *map(_changed, names), *_USE, *_ORIGIN)]
    return [row for row in rows if any(value != ABSENT for value in row.values)]


def comparison_dict(sets: Sequence[Statistics]) -> dict[str, Any]:
    """The whole records of all sets, for JSON."""
    tokenizers = [statistics.model_dump(mode="json") for statistics in sets]
    return {"format": "imtok-comparison", "version": 1, "tokenizers": tokenizers}


def _row(kind: _Kind, sets: Sequence[Statistics]) -> Row:
    values = [kind.value(statistics) for statistics in sets]
    shown = [ABSENT if value is None else kind.show(value) for value in values]
    best = _best(kind, sets, values, shown) if kind.better else None
    beside = ["" if value is None else kind.beside(statistics) for value, statistics in zip(values, sets, strict=True)]
    return Row(kind.key, kind.name, tuple(shown), tuple(beside), best, kind.definition)


def _best(kind: _Kind, sets: Sequence[Statistics], values: Sequence[float | None], shown: Sequence[str]) -> int | None:
    """The set with the best value, unless another is shown with the same one or was measured otherwise."""
    found = [(kind.better * value, place) for place, value in enumerate(values) if value is not None]
    if len(found) < 2 or len({kind.alike(sets[place]) for _, place in found}) > 1:
        return None
    place = max(found)[1]
    return place if shown.count(shown[place]) == 1 else None


def _at(path: str) -> Callable[[Statistics], Any]:
    """What stands at a dotted path of names; None where the way there ends early."""

    def value(statistics: Statistics) -> Any:
        found: Any = statistics
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        return found

    return value


_reconstruction = _at("tokenizer.reconstruction")


def _measured(statistics: Statistics, metric: type[Metric]) -> float | None:
    """A metric of reconstructions; better than any number where all images are exact, None where it is absent."""
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


def alike_in_rate_and_distortion(statistics: Statistics) -> Hashable:
    """What two sets must share for their bits and their first metric to be compared; None where a set has none.

    The number of images is part of it: what an adaptive coder pays for learning is shared by all of them.
    """
    protocol = _protocol(statistics)
    return protocol and (protocol, statistics.images, statistics.size)


def _dominated_row(sets: Sequence[Statistics]) -> Row:
    values = tuple(_dominating(statistics, sets) for statistics in sets)
    return Row("dominated-by", "dominated by", values, ("",) * len(sets), None, _DOMINATED)


_DOMINATED = (
    "another set, of as many images of one size and measured by one protocol, that has at least this "
    f"{first_metric().label} at no more bits, raw and coded, and is ahead in one of the three; nobody: this one lies "
    "on the Pareto front of rate and distortion (Shannon, 1959)"
)


def _dominating(statistics: Statistics, sets: Sequence[Statistics]) -> str:
    alike = alike_in_rate_and_distortion(statistics)
    others = [other for other in sets if other is not statistics and alike_in_rate_and_distortion(other) == alike]
    if alike is None or not others:
        return ABSENT
    return ", ".join(other.name for other in others if _dominates(_place(other), _place(statistics))) or "nobody"


def _place(statistics: Statistics) -> tuple[float, float, float]:
    """Where a set lies between rate and distortion; less is better in each."""
    return (
        -(_measured(statistics, first_metric()) or 0.0),
        statistics.bits.raw_per_image,
        statistics.bits.coded_per_image,
    )


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def _perturbations(statistics: Statistics) -> list[Perturbation]:
    return statistics.tokenizer.sensitivity.disturbances if statistics.tokenizer else []


def _changed(name: str) -> _Kind:
    """How many codes one disturbance changes."""

    def value(statistics: Statistics) -> float | None:
        return next((each.changed for each in _perturbations(statistics) if each.name == name), None)

    return _Kind(f"changed by {name}", name, definition(Perturbation, "changed"), value, "{:.1%} changed".format)


def _same_after_a_pass(statistics: Statistics) -> float | None:
    passes = statistics.tokenizer.idempotence.passes if statistics.tokenizer else []
    return passes[0].same_as_first if passes else None


def _duplicates(statistics: Statistics) -> str:
    return f"{statistics.duplicates.duplicates:,} of {statistics.duplicates.images:,}"


def mutual_information(statistics: Statistics, side: Neighbours) -> str:
    """From what a coder gains by the neighbour, learning paid for, to the estimate, too high where pairs are few."""
    gained = max(0.0, statistics.own_entropy_bits - side.coded_bits)
    return f"{gained:.2f} to {max(gained, side.mutual_information_corrected_bits):.2f}"


def _codes(statistics: Statistics) -> str:
    books = (statistics.num_codebooks,) if statistics.num_codebooks > 1 else ()
    return " x ".join(map(str, (*statistics.grid, *books))) + f" of {statistics.codebook_size:,}"


def _findings(statistics: Statistics) -> str:
    return ", ".join(finding.name for finding in statistics.findings) or "none"


def _price(statistics: Statistics) -> str:
    return f"at {statistics.bits.raw_per_image:,.0f} bits"


def _of_set(name: str, field: str, show: str) -> _Kind:
    return _Kind(field, name, definition(Statistics, field), _at(field), show.format)


def _of_use(name: str, field: str, show: str, better: int = 0) -> _Kind:
    """A figure of `Use`, with the codebook where it is worst."""

    def value(statistics: Statistics) -> float | None:
        return over_codebooks(statistics, field)

    def beside(statistics: Statistics) -> str:
        found = worst(statistics, field)
        if found is None:
            return ""
        return f"(mean of {len(statistics.codebooks)} codebooks; worst: {found.place}, {show.format(found.value)})"

    text = f"{definition(Use, field)}; mean over codebooks where there are several"
    return _Kind(field, name, text, value, show.format, better, beside=beside)


def _of_bits(name: str, field: str, show: str, text: str = "") -> _Kind:
    return _Kind(field, name, definition(Bits, field) + text, _at(f"bits.{field}"), show.format)


def _of_metric(metric: type[Metric]) -> _Kind:
    """A metric of reconstructions, with the bits that it costs."""

    def show(value: float) -> str:
        return metric.format(value if math.isfinite(value) else None)

    def value(statistics: Statistics) -> float | None:
        return _measured(statistics, metric)

    return _Kind(metric.name, metric.label, metric.description, value, show, _sign(metric), _protocol, _price)


_BITS = (
    _of_bits("bits per image, raw", "raw_per_image", "{:,.0f}"),
    _of_bits("bits per image, coded", "coded_per_image", "{:,.0f}", f": {definition(Bits, 'coded_per_token')}"),
    _of_bits("bits per pixel, coded", "coded_per_pixel", "{:.4f}"),
)
_STABILITY = (
    _Kind(
        "error",
        "quantization error",
        f"{definition(ErrorByCode, 'relative')}, each set in its own latents",
        _at("tokenizer.error.relative"),
        significant,
        beside=_price,
    ),
    _Kind(
        "same-after-a-pass",
        "same after a pass",
        f"{definition(Pass, 'same_as_first')}, after one pass of decode, round to uint8, encode",
        _same_after_a_pass,
        "{:.1%}".format,
    ),
)
_USE = (
    _of_use("usage", "usage", "{:.1%}", better=1),
    _Kind(
        "usage-per-256-images",
        "usage per 256 images",
        definition(Runs, "usage"),
        _at("per_256_images.usage"),
        "{:.1%}".format,
        better=1,
        alike=_at("size"),
    ),
    _of_use("dead codes", "dead", "{:,.0f}"),
    _of_use("perplexity", "perplexity", "{:,.1f}"),
    _of_use("perplexity / K", "normalized_perplexity", "{:.3f}", better=1),
    _of_use("entropy", "entropy_corrected_bits", "{:.3f} bits"),
    _of_use("Gini", "gini", "{:.3f}", better=-1),
    _of_use("Zipf slope", "zipf_slope", "{:.2f}"),
    _Kind(
        "mutual-information",
        "mutual information",
        f"bits, of horizontal neighbours: from the entropy less {definition(Neighbours, 'coded_bits')}; to the "
        "estimate, which is too high where pairs are few a code",
        lambda statistics: statistics.horizontal and mutual_information(statistics, statistics.horizontal),
    ),
    _Kind("duplicates", "duplicates", f"{definition(Duplicates, 'duplicates')}, of those compared", _duplicates),
    _Kind("findings", "findings", definition(Statistics, "findings"), _findings),
)
_ORIGIN = (
    _of_set("images", "images", "{:,}"),
    _of_set("size", "size", "{} pixels"),
    _Kind("codes", "codes", "h x w grid of an image's codes, x Q codebooks where there are several, of K", _codes),
    _of_set("quantizer", "quantizer", "{}"),
)
