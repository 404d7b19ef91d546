"""Token sets side by side: bits per image first, and beside every figure of quality.

A best one is named only where better means something and the sets were measured alike: figures of use on as many images
of one size, figures of pictures by one protocol. That the images are the same ones is for the caller to see to. Fewer
bits alone are not better, and codes that hardly vary are hardly disturbed, so bits, idempotence and sensitivity have no
best. What bits and quality say together is a row of its own: who lies on the front of rate and distortion.
"""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from imtok.analysis.figures import (
    Bits,
    Disturbance,
    Duplicates,
    ErrorByCode,
    Figures,
    Neighbours,
    Pass,
    Reconstruction,
    Runs,
    definition,
)

ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One figure of all sets."""

    name: str
    values: tuple[str, ...]  # one a set, "-" where it has none
    best: int | None  # which set is best; None where that cannot be said
    definition: str


@dataclass(frozen=True)
class _Kind:
    """A figure: what it means, where it is found, how it is shown, which way is better: 1 more, -1 less, 0 neither."""

    name: str
    definition: str
    value: Callable[[Figures], Any]
    show: Callable[[Any], str] = str
    better: int = 0
    alike: Callable[[Figures], Hashable] = lambda figures: (figures.images, figures.size)
    beside_bits: bool = False


def comparison_rows(sets: Sequence[Figures]) -> list[Row]:
    """The rows of a comparison, bits first; figures that no set has are left out."""
    names = dict.fromkeys(each.name for figures in sets for each in _disturbances(figures))
    rows = [_row(kind, sets) for kind in (*_BITS, *_QUALITY)]
    rows.append(Row("outdone by", tuple(_outdone(figures, sets) for figures in sets), None, _OUTDONE))
    rows += [_row(kind, sets) for kind in (*_STABILITY, *map(_changed, names), *_USE, *_ORIGIN)]
    return [row for row in rows if any(value != ABSENT for value in row.values)]


def comparison_dict(sets: Sequence[Figures]) -> dict[str, Any]:
    """The whole records of all sets, for JSON."""
    tokenizers = [figures.model_dump(mode="json") for figures in sets]
    return {"format": "imtok-comparison", "version": 1, "tokenizers": tokenizers}


def _row(kind: _Kind, sets: Sequence[Figures]) -> Row:
    values = [kind.value(figures) for figures in sets]
    shown = [ABSENT if value is None else kind.show(value) for value in values]
    best = _best(kind, sets, values, shown) if kind.better else None
    if kind.beside_bits:
        shown = [
            text if text == ABSENT else f"{text} at {figures.bits.raw_per_image:,.0f} bits"
            for text, figures in zip(shown, sets, strict=True)
        ]
    return Row(kind.name, tuple(shown), best, kind.definition)


def _best(kind: _Kind, sets: Sequence[Figures], values: Sequence[float | None], shown: Sequence[str]) -> int | None:
    """The set with the best value, unless another is shown with the same one or was measured otherwise."""
    found = [(kind.better * value, place) for place, value in enumerate(values) if value is not None]
    if len(found) < 2 or len({kind.alike(sets[place]) for _, place in found}) > 1:
        return None
    place = max(found)[1]
    return place if shown.count(shown[place]) == 1 else None


def _at(path: str) -> Callable[[Figures], Any]:
    """What stands at a dotted path of names; None where the way there ends early."""

    def value(figures: Figures) -> Any:
        found: Any = figures
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        return found

    return value


_reconstruction = _at("tokenizer.reconstruction")


def _psnr(figures: Figures) -> float | None:
    """In dB, infinite where all images are exact."""
    found = _reconstruction(figures)
    return found and (math.inf if found.psnr is None else found.psnr)


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if math.isfinite(value) else "exact"


def _protocol(figures: Figures) -> Hashable:
    found = _reconstruction(figures)
    return found and (found.images, found.size, found.protocol)


_OUTDONE = (
    "another set, measured alike, that has at least this PSNR at no more bits, raw and coded, and is ahead in one of "
    "the three; nobody: this one lies on the front of rate and distortion (Shannon, 1959)"
)


def _outdone(figures: Figures, sets: Sequence[Figures]) -> str:
    others = [other for other in sets if other is not figures and _protocol(other) == _protocol(figures)]
    if _protocol(figures) is None or not others:
        return ABSENT
    return ", ".join(other.name for other in others if _outdoes(_place(other), _place(figures))) or "nobody"


def _place(figures: Figures) -> tuple[float, float, float]:
    """Where a set lies between rate and distortion; less is better in each."""
    return (-(_psnr(figures) or 0.0), figures.bits.raw_per_image, figures.bits.coded_per_image)


def _outdoes(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def _disturbances(figures: Figures) -> list[Disturbance]:
    return figures.tokenizer.sensitivity.disturbances if figures.tokenizer else []


def _changed(name: str) -> _Kind:
    """How many codes one disturbance changes."""

    def value(figures: Figures) -> float | None:
        return next((each.changed for each in _disturbances(figures) if each.name == name), None)

    return _Kind(name, definition(Disturbance, "changed"), value, "{:.1%} changed".format)


def _same_after_a_pass(figures: Figures) -> float | None:
    passes = figures.tokenizer.idempotence.passes if figures.tokenizer else []
    return passes[0].same_as_first if passes else None


def _duplicates(figures: Figures) -> str:
    return f"{figures.duplicates.duplicates:,} of {figures.duplicates.images:,}"


def mutual_information(figures: Figures, side: Neighbours) -> str:
    """From what a coder gains by the neighbour, learning paid for, to the estimate, too high where pairs are few."""
    gained = max(0.0, figures.own_entropy_bits - side.coded_bits)
    return f"{gained:.2f} to {max(gained, side.mutual_information_corrected_bits):.2f}"


def _codes(figures: Figures) -> str:
    books = (figures.num_codebooks,) if figures.num_codebooks > 1 else ()
    return " x ".join(map(str, (*figures.grid, *books))) + f" of {figures.codebook_size:,}"


def _findings(figures: Figures) -> str:
    return ", ".join(finding.name for finding in figures.findings) or "none"


def _of_use(name: str, field: str, show: str, better: int = 0) -> _Kind:
    return _Kind(name, definition(Figures, field), _at(field), show.format, better)


def _of_bits(name: str, field: str, show: str, text: str = "") -> _Kind:
    return _Kind(name, definition(Bits, field) + text, _at(f"bits.{field}"), show.format)


def _of_pictures(name: str, field: str, value: Callable[[Figures], Any], show: Callable[[Any], str]) -> _Kind:
    return _Kind(name, definition(Reconstruction, field), value, show, 1, _protocol, beside_bits=True)


_BITS = (
    _of_bits("bits per image, raw", "raw_per_image", "{:,.0f}"),
    _of_bits("bits per image, coded", "coded_per_image", "{:,.0f}", f": {definition(Bits, 'coded_per_token')}"),
    _of_bits("bits per pixel, coded", "coded_per_pixel", "{:.4f}"),
)
_QUALITY = (
    _of_pictures("PSNR", "psnr", _psnr, _decibels),
    _of_pictures("SSIM", "ssim", _at("tokenizer.reconstruction.ssim"), "{:.4f}".format),
)
_STABILITY = (
    _Kind(
        "quantization error",
        f"{definition(ErrorByCode, 'relative')}, each set in its own latents",
        _at("tokenizer.error.relative"),
        "{:.4f}".format,
        beside_bits=True,
    ),
    _Kind(
        "same after a pass",
        f"{definition(Pass, 'same_as_first')}, after one pass of decode, round to uint8, encode",
        _same_after_a_pass,
        "{:.1%}".format,
    ),
)
_USE = (
    _of_use("usage", "usage", "{:.1%}", better=1),
    _Kind(
        "usage per 256 images",
        definition(Runs, "usage"),
        _at("per_256_images.usage"),
        "{:.1%}".format,
        better=1,
        alike=_at("size"),
    ),
    _of_use("dead codes", "dead", "{:,}"),
    _of_use("perplexity", "perplexity", "{:,.1f}"),
    _of_use("perplexity / K", "normalized_perplexity", "{:.3f}", better=1),
    _of_use("entropy", "entropy_corrected_bits", "{:.3f} bits"),
    _of_use("Gini", "gini", "{:.3f}", better=-1),
    _of_use("Zipf slope", "zipf_slope", "{:.2f}"),
    _Kind(
        "mutual information",
        f"bits, of horizontal neighbours: from the entropy less {definition(Neighbours, 'coded_bits')}; to the "
        "estimate, which is too high where pairs are few a code",
        lambda figures: figures.horizontal and mutual_information(figures, figures.horizontal),
    ),
    _Kind("duplicates", f"{definition(Duplicates, 'duplicates')}, of those compared", _duplicates),
    _Kind("findings", definition(Figures, "findings"), _findings),
)
_ORIGIN = (
    _of_use("images", "images", "{:,}"),
    _of_use("size", "size", "{} pixels"),
    _Kind("codes", "h x w grid of an image's codes, x Q codebooks where there are several, of K", _codes),
    _of_use("quantizer", "quantizer", "{}"),
)
