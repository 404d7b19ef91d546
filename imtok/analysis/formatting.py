"""Formatting for terminal and report: means over codebooks, rows of bits, ranges of maps, names and numbers."""

# Axes: K codes, Q codebooks, h x w grid of the codes of an image.

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imtok.analysis.statistics import PositionMap, Statistics
from imtok.usage import Span

TOGETHER = "all codebooks together"
_NEAR = 0.98  # of the highest entropy that so many images can show
_SMALLEST_SCALE = 1.0  # bits; on a smaller scale noise would look like a pattern
_FEW_UNSEEN = 0.02  # of the codes: too few to mention
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_GREATER_IS_WORSE = {"dead", "nearly_dead", "gini"}


class Worst(NamedTuple):
    """The codebook where a statistic is worst."""

    codebook: str  # such as "number 2"
    value: float


@dataclass(frozen=True)
class Headline:
    """The main statistics of `Use`, each the mean over codebooks."""

    used: float
    usage: float
    dead: float
    nearly_dead: float
    expected_used: float
    entropy_bits: float
    entropy_corrected_bits: float
    perplexity: float
    normalized_perplexity: float
    gini: float
    zipf_slope: float | None


def headline(statistics: Statistics) -> Headline:
    """Return means over codebooks: counted together, one codebook would hide the unused codes of another."""
    return Headline(**{name: over_codebooks(statistics, name) for name in Headline.__dataclass_fields__})  # type: ignore[arg-type]


def over_codebooks(statistics: Statistics, name: str) -> float | None:
    """Return a statistic of `Use`, the mean over the codebooks that have it."""
    if not several(statistics):
        found: float | None = getattr(statistics, name)
        return found
    values = [value for each in statistics.codebooks if (value := getattr(each, name)) is not None]
    return sum(values) / len(values) if values else None


def worst(statistics: Statistics, name: str) -> Worst | None:
    """Find the codebook where a statistic of `Use` is worst, the first of equals; None where there is one codebook."""
    if not several(statistics):
        return None
    sign = -1 if name in _GREATER_IS_WORSE else 1
    numbered = [Worst(f"number {number}", getattr(each, name)) for number, each in enumerate(statistics.codebooks, 1)]
    found = [each for each in numbered if each.value is not None]
    return min(found, key=lambda each: sign * each.value, default=None)


def unseen(statistics: Statistics) -> str:
    """Say how many unused codes more images would show at least; empty for few codes and for several codebooks."""
    more = statistics.expected_used - statistics.used
    if several(statistics) or more < _FEW_UNSEEN * statistics.codebook_size:
        return ""
    return f"more images would show {more:,.0f} of them or more"


def several(statistics: Statistics) -> bool:
    """Return whether there are several codebooks."""
    return len(statistics.codebooks) > 1


def together(statistics: Statistics) -> str:
    """Return what to add to the name of a statistic that counts all codebooks together; nothing where Q is 1."""
    return f", {TOGETHER}" if several(statistics) else ""


@dataclass(frozen=True)
class TokenBits:
    """One row of "bits a token"; a range from `low` to `high` where an estimate and a coder differ."""

    name: str
    low: float
    high: float | None = None


def token_bits(statistics: Statistics) -> list[TokenBits]:
    """Return the rows from log2 K down to the entropy given a neighbour, and last the adaptive coder ("coded")."""
    sides = {"given left": statistics.horizontal, "given above": statistics.vertical}
    return [
        TokenBits("log2 K", statistics.max_bits),
        TokenBits("entropy", statistics.own_entropy_bits),
        *(
            TokenBits(name, side.conditional_entropy_corrected_bits, side.coded_bits)
            for name, side in sides.items()
            if side is not None
        ),
        TokenBits("coded", statistics.bits.coded_per_token),
    ]


def contexts_share(statistics: Statistics) -> float:
    """Return the share of the codes whose neighbours were counted, the lesser of both directions."""
    return min((side.contexts_share for side in (statistics.horizontal, statistics.vertical) if side), default=1.0)


def tells_places_apart(positions: PositionMap) -> bool:
    """Return whether there are enough images to compare positions by their entropy."""
    return bool(np.median(positions.entropy_bits) < _NEAR * positions.limit_bits)


def map_range(bits: list[list[float]]) -> tuple[float, float]:
    """Return the ends of the scale of a map: those of its values, but at least one bit apart."""
    values = np.array(bits)
    most = float(values.max())
    return min(float(values.min()), most - _SMALLEST_SCALE), most


def span_name(span: Span) -> str:
    """Format how often the codes of a span occur: never, once, 2 to 9, 10k to 100k."""
    if span.low == span.high:
        return {0: "never", 1: "once"}.get(span.low, f"{span.low:,}")
    if span.low < 10_000:
        return f"{span.low:,} to {span.high:,}"
    return f"{brief(span.low)} to {brief(span.high + 1)}"


def brief(value: float) -> str:
    """Format a number shortly for an axis: 1, 500, 1k, 2.5M, 1B; 0.01."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def significant(value: float, digits: int = 4) -> str:
    """Format with so many decimals, or with two significant digits where these would be zeros: 0.0123, 1.2e-05."""
    return f"{value:.2g}" if 0 < abs(value) < 10 ** (1 - digits) else f"{value:,.{digits}f}"


def number(value: float, digits: int = 0) -> str:
    """Write a number with separators of thousands and a true minus sign: 12,345 or −0.52."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """Write a share in per cent with one decimal; 0% and 100% are exactly that."""
    if share in (0, 1):
        return f"{share:.0%}"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}".replace("-", "−")


def printable(text: str) -> str:
    """Replace characters that neither XML nor UTF-8 can hold, such as bytes of a file name that is no text."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shortened(text: str, length: int) -> str:
    """Cut a text to `length` characters by leaving out its middle: the ends of paths and keys say most."""
    text = printable(text)
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
