"""Plots of what the tokenizer itself shows: how its codes lie, how well they fit, how robust they are.

Each function takes the figures and returns a drawing, or None where there is nothing to show.
"""

# Axes: K codes, D latent channels.

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.formatting import brief, several
from imtok.analysis.statistics import Geometry, Statistics
from imtok.report.charts import Bar, bar_rows, count_axis, dots, histogram, share_axis, small_panels
from imtok.report.style import BLUE, INK, NARROW, ORANGE, TEAL, WIDE, panel, percent

MOST_TABLES = 8
_USE = ((0.0, 0.1), (0.1, 1.0), (1.0, 10.0), (10.0, np.inf))  # in even shares
_MANY = 600  # points that a map has room for at full size
_DIAMETERS, _STRENGTHS = (2.6, 3.8, 5.4, 8.5), (0.35, 0.5, 0.7, 0.9)


def norms(statistics: Statistics) -> Figure | None:
    """Norms of the learned codes."""
    tables = _learned(statistics)

    def draw(axes: Axes, place: int) -> None:
        histogram(axes, tables[place].norms)
        _middle(axes, tables[place].mean_norm, "mean")
        _title(axes, tables, place, "codes")

    return _tables(tables, draw, "norm")


def distances(statistics: Statistics) -> Figure | None:
    """Distances of the learned codes to their nearest others."""
    tables = _learned(statistics)

    def draw(axes: Axes, place: int) -> None:
        histogram(axes, tables[place].distances)
        _middle(axes, tables[place].median_distance, "median")
        _title(axes, tables, place, "codes")

    return _tables(tables, draw, "distance")


def code_map(statistics: Statistics) -> Figure | None:
    """Codes on their two main axes, by use."""
    found = [] if statistics.tokenizer is None else statistics.tokenizer.geometry
    tables = [each for each in found if each.points][:MOST_TABLES]
    even = statistics.tokens / statistics.codebook_size / max(1, len(found))
    spans = [np.ptp(each.points, axis=0) for each in tables]
    flat = max((float(high / max(wide, 1e-9)) for wide, high in spans), default=1.0)

    def draw(axes: Axes, place: int) -> None:
        _cloud(axes, tables[place], even)
        _title(axes, tables, place, "")

    return _tables(tables, draw, "", height=round(330 * max(0.5, min(1.0, flat))))


def error(statistics: Statistics) -> Figure | None:
    """Quantization error of each code over how often it occurred."""
    data = None if statistics.tokenizer is None else statistics.tokenizer.error
    if data is None:
        return None
    points = np.array([pair for pair in zip(data.tokens, data.errors, strict=True) if min(pair) > 0], float)
    if not len(points):
        return None
    figure, axes = panel()
    count_axis(axes, "x")
    axes.set_xlim(points[:, 0].min() * 0.8, points[:, 0].max() * 1.25)
    axes.set_ylim(0, points[:, 1].max() * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    dots(axes, points, 4.5, BLUE, 0.55)
    axes.axhline(data.mean, color=INK, linewidth=1.2, dashes=(4, 3))
    axes.set_title("error")
    told = f"dashed: mean {data.mean:.2g}, {percent(data.relative)} of the latents' power"
    axes.set_title(told, loc="right", color=INK)
    axes.set_xlabel("tokens measured on" + (", first codebook" if several(statistics) else ""), loc="right")
    return figure


def idempotence(statistics: Statistics) -> Figure | None:
    """Share of the tokens that stay, pass after pass."""
    passes = [] if statistics.tokenizer is None else statistics.tokenizer.idempotence.passes
    if not passes:
        return None
    figure, axes = panel()
    places = np.arange(1, len(passes) + 1)
    for values, name, colour, below in (
        ([each.same_as_last for each in passes], "as before this pass", TEAL, False),
        ([each.same_as_first for each in passes], "as at the start", BLUE, True),
    ):
        axes.plot(places, values, color=colour, marker="o", markersize=6)
        axes.annotate(
            f"{name}: {percent(values[-1])}",
            (places[-1], values[-1]),
            (4, -9 if below else 9),
            textcoords="offset points",
            ha="right",
            va="top" if below else "bottom",
            color=colour,
        )
    lowest = min(min(each.same_as_first, each.same_as_last) for each in passes)
    axes.set_xlim(0.8 if len(passes) > 1 else 0, places[-1] + 0.1)
    axes.set_xticks(places)
    share_axis(axes, max(0.0, lowest - 0.25))
    axes.set_title("tokens unchanged")
    axes.set_xlabel("pass", loc="right")
    return figure


def sensitivity(statistics: Statistics) -> Figure | None:
    """Share of the tokens that each disturbance changes."""
    if statistics.tokenizer is None or not statistics.tokenizer.sensitivity.disturbances:
        return None
    bars = [
        Bar(each.name, each.changed, f"{percent(each.changed)}{_decibels(each.psnr)}", ORANGE)
        for each in statistics.tokenizer.sensitivity.disturbances
    ]
    note = "measured on decoded pictures, no images given" if statistics.tokenizer.sensitivity.of_decoded else ""
    return bar_rows(bars, limit=1.0, note=note)


def _decibels(psnr: float | None) -> str:
    return "" if psnr is None else f"  ·  {psnr:.0f} dB"


def _learned(statistics: Statistics) -> list[Geometry]:
    if statistics.tokenizer is None:
        return []
    return [each for each in statistics.tokenizer.geometry if not each.fixed][:MOST_TABLES]


def _tables(tables: list[Geometry], draw: Callable[[Axes, int], None], label: str, height: int = 260) -> Figure | None:
    if not tables:
        return None
    if len(tables) == 1:
        figure = small_panels(1, draw, across=1, width=NARROW, height=height)
    else:
        figure = small_panels(len(tables), draw, across=4, width=WIDE, height=round(height * 0.75))
    for axes in figure.axes:
        axes.set_xlabel(label, loc="right")
    return figure


def _title(axes: Axes, tables: list[Geometry], place: int, words: str) -> None:
    axes.set_title(words if len(tables) == 1 else f"codebook {tables[place].codebook + 1}")


def _middle(axes: Axes, value: float, name: str) -> None:
    axes.axvline(value, color=INK, linewidth=1.2)
    axes.annotate(
        f"{name} {brief(float(f'{value:.3g}'))}",
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -2),
        textcoords="offset points",
        va="top",
    )


def _cloud(axes: Axes, table: Geometry, even: float) -> None:
    points, counts = np.array(table.points), np.array(table.point_counts)
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * max(right - left, top - bottom, 1e-9)
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    axes.set_aspect("equal")
    places = len(np.unique(points.round(4), axis=0))  # codes that the method fixes may lie above one another
    scale = min(1.0, (_MANY / places) ** 0.5)
    dots(axes, points[counts == 0], 3.2 * scale, ORANGE, 0.9)
    for (least, most), diameter, strength in zip(_USE, _DIAMETERS, _STRENGTHS, strict=True):
        chosen = (counts > 0) & (counts >= least * even) & (counts < most * even)
        dots(axes, points[chosen], diameter * scale, BLUE, strength)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
