"""Plots of which codes occur: how often, how evenly, how soon, in each codebook and dimension.

Each function takes the figures and returns a drawing, or None where there is nothing to show.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imtok.analysis.formatting import TOGETHER, several, span_name, together
from imtok.analysis.statistics import Dimension, Statistics
from imtok.report.charts import Bar, bar_columns, bar_rows, count_axis, level, small_panels
from imtok.report.style import (
    BLUE,
    INK,
    NARROW,
    ORANGE,
    PALE,
    SOFT,
    WIDE,
    number,
    panel,
    percent,
)

MOST_DIMENSIONS, MOST_CODEBOOKS = 36, 32
_MOST_ROWS = 12


def frequency(statistics: Statistics) -> Figure | None:
    """Codes by how often they occur: never, once, and in powers of ten."""
    if not statistics.tokens or not statistics.frequency:
        return None
    bars = [
        Bar(
            span_name(span),
            span.codes,
            f"{number(span.codes)}  ·  {percent(span.codes / statistics.codebook_size)}",
            ORANGE if span.high == 0 else BLUE,
        )
        for span in statistics.frequency
    ]
    return bar_rows(bars, limit=max(bar.value for bar in bars), note=TOGETHER if several(statistics) else "")


def rank_frequency(statistics: Statistics) -> Figure | None:
    """Occurrences over rank, with the even share N / K and the line of the Zipf slope."""
    points = [(rank, times) for rank, times in statistics.rank_frequency if times > 0]
    if len(points) < 2:
        return None
    ranks, times = np.array(points, float).T
    even = statistics.tokens / statistics.codebook_size
    figure, axes = panel()
    count_axis(axes, "x")
    count_axis(axes, "y")
    axes.set_xlim(0.9, statistics.codebook_size * 1.15)
    axes.set_ylim(min(times.min(), even) / 2, max(times.max(), even) * 3)
    level(axes, even, f"even use: {number(even)} each" if even >= 10 else f"even use: {even:.2g} each", below=True)
    if statistics.zipf_slope is not None:
        middle, height = np.log(ranks).mean(), np.log(times).mean()
        ends = np.array([ranks[0], ranks[-1]])
        fitted = np.exp(height + statistics.zipf_slope * (np.log(ends) - middle))
        axes.plot(ends, fitted, color=ORANGE, linewidth=1.4)
        axes.annotate(
            f"slope {number(statistics.zipf_slope, 2)}",
            (0.98, 0.94),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=ORANGE,
        )
    axes.plot(ranks, times, color=BLUE)
    axes.set_title(f"occurrences{together(statistics)}")
    axes.set_xlabel("rank of the code", loc="right")
    return figure


def growth(statistics: Statistics) -> Figure | None:
    """Codes used after so many images, against K and the number expected of more images."""
    points = [(images, used) for images, used in statistics.growth if images > 0]
    if len(points) < 2:
        return None
    images, used = np.array(points, float).T
    size = statistics.codebook_size
    figure, axes = panel()
    count_axis(axes, "x")
    count_axis(axes, "y", log=False)
    axes.set(xlim=(images[0], images[-1]), ylim=(0, size * 1.12))
    level(axes, size, f"all {number(size)}")
    if min(size - statistics.expected_used, statistics.expected_used - statistics.used) > 0.08 * size:
        level(axes, statistics.expected_used, f"{number(statistics.expected_used)} expected of more images")
    axes.fill_between(images, used, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(images, used, color=BLUE)
    full = used[-1] > 0.85 * size  # then there is no room above the curve, but it is flat
    axes.annotate(
        number(used[-1]),
        (images[-1], used[-1]),
        (-2, -8 if full else 6),
        textcoords="offset points",
        ha="right",
        va="top" if full else "bottom",
        color=INK,
    )
    axes.set_title(f"codes used{together(statistics)}")
    axes.set_xlabel("images seen", loc="right")
    return figure


def codebooks(statistics: Statistics) -> Figure | None:
    """Usage of each codebook, with its normalised perplexity as a stroke."""
    if statistics.num_codebooks < 2 or not statistics.tokens:
        return None
    bars = [
        Bar(
            f"codebook {place}",
            each.usage,
            f"{percent(each.usage)}  ·  {number(each.perplexity)}",
            PALE,
            each.normalized_perplexity,
        )
        for place, each in enumerate(statistics.codebooks[:MOST_CODEBOOKS], 1)
    ]
    return bar_rows(bars, limit=1.0)


def dimensions(statistics: Statistics) -> Figure | None:
    """Shares of the levels, dimension by dimension; for two levels one bar each."""
    shown = statistics.dimensions[:MOST_DIMENSIONS]
    if not shown:
        return None
    named = statistics.num_codebooks > 1
    if all(len(each.shares) == 2 for each in shown):
        bars = [
            Bar(_dimension_name(each, named), each.shares[1], f"{percent(each.shares[1])} plus", BLUE, 0.5)
            for each in shown
        ]
        return bar_columns(bars, limit=1.0) if len(bars) > _MOST_ROWS else bar_rows(bars, limit=1.0)

    def draw(axes: Axes, place: int) -> None:
        _levels(axes, shown[place], named)

    across = 3 if len(shown) <= 9 else 6
    return small_panels(len(shown), draw, across=across, width=NARROW if across == 3 else WIDE, height=116)


def _levels(axes: Axes, each: Dimension, named: bool) -> None:
    places = np.arange(len(each.shares))
    axes.bar(places, each.shares, width=0.78, color=BLUE)
    axes.axhline(1 / len(each.shares), color=SOFT, linewidth=1.2, dashes=(4, 3))
    axes.set_ylim(0, max([*each.shares, 2 / len(each.shares)]))
    axes.set_title(f"{_dimension_name(each, named)}\n{each.entropy_bits:.2f} of {each.max_bits:.2f} bits", fontsize=10)
    axes.grid(visible=False)
    axes.yaxis.set_visible(False)
    axes.set_xticks([0, len(places) - 1], ["0", str(len(places) - 1)], fontsize=10)


def _dimension_name(each: Dimension, named: bool) -> str:
    """Its number, after that of its codebook where these are `named`."""
    return f"{each.codebook + 1}.{each.dimension + 1}" if named else f"dimension {each.dimension + 1}"
