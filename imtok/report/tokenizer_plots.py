"""Plots of the tokenizer itself: the geometry of its codes, how well they fit the latents, how robust they are.

The docstring of a plot is its caption.
"""

# Axes: K codes, D latent channels.

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.formatting import brief, percent, several
from imtok.analysis.statistics import Geometry, Histogram, Statistics
from imtok.report.charts import Bar, bar_rows, bare, count_axis, dots, histogram, note, share_axis, small_panels
from imtok.report.plot import plot
from imtok.report.style import BLUE, INK, NARROW, ORANGE, TEAL, WIDE, panel

MOST_CODEBOOKS = 8
_USE = ((0.0, 0.1), (0.1, 1.0), (1.0, 10.0), (10.0, np.inf))  # in even shares
_MANY = 600  # points that a map has room for at full size
_DIAMETERS, _STRENGTHS = (2.6, 3.8, 5.4, 8.5), (0.35, 0.5, 0.7, 0.9)


@plot("codes", "Norms of the codes")
def norms(statistics: Statistics) -> Figure | None:
    """Distribution of the norms of the codes. A second peak often means codes that were never trained."""
    return _histograms(statistics, "norm", lambda each: (each.norms, each.mean_norm, "mean"))


@plot("codes", "Distances of the codes")
def distances(statistics: Statistics) -> Figure | None:
    """Distance of each code to its nearest other. A peak near zero means codes that duplicate each other."""
    return _histograms(statistics, "distance", lambda each: (each.distances, each.median_distance, "median"))


def _histograms(
    statistics: Statistics, label: str, read: Callable[[Geometry], tuple[Histogram, float, str]]
) -> Figure | None:
    """One histogram for each learned codebook, with its middle, a number and its name, as a line."""
    codebooks = [each for each in _geometry(statistics) if not each.fixed][:MOST_CODEBOOKS]

    def draw(axes: Axes, codebook: Geometry) -> None:
        data, middle, name = read(codebook)
        histogram(axes, data)
        axes.axvline(middle, color=INK, linewidth=1.2)
        note(axes, f"{name} {brief(float(f'{middle:.3g}'))}", (middle, axes.get_ylim()[1]), (4, -2), INK)
        axes.set(title="codes", xlabel=label)

    return _by_codebook(codebooks, draw, 260)


def _orange(statistics: Statistics) -> str:
    """Explain the colour of unused codes where some are drawn, and say where only a part of the codes is."""
    drawn = [each for each in _geometry(statistics) if each.points][:MOST_CODEBOOKS]
    unused = "Orange ones never occur." if any(0 in each.point_counts for each in drawn) else ""
    parts = any(len(each.points) < each.codes for each in drawn)
    return f"{unused} {'A sample of the codes is drawn.' if parts else ''}"


@plot("codes", "Map of the codes", _orange)
def code_map(statistics: Statistics) -> Figure | None:
    """Codes on their two principal axes, larger and darker the more they are used."""
    found = _geometry(statistics)
    codebooks = [each for each in found if each.points][:MOST_CODEBOOKS]
    even = statistics.tokens / statistics.codebook_size / max(1, len(found))
    spans = [np.ptp(each.points, axis=0) for each in codebooks]
    flat = max((float(high / max(wide, 1e-9)) for wide, high in spans), default=1.0)
    return _by_codebook(codebooks, partial(_cloud, even=even), round(330 * max(0.5, min(1.0, flat))))


def _geometry(statistics: Statistics) -> list[Geometry]:
    return [] if statistics.tokenizer is None else statistics.tokenizer.geometry


def _by_codebook(codebooks: list[Geometry], draw: Callable[[Axes, Geometry], None], height: int) -> Figure | None:
    """One panel for a single codebook; for several, small panels with the codebook's number as title."""
    if len(codebooks) <= 1:
        return small_panels(codebooks, draw, across=1, width=NARROW, height=height) if codebooks else None
    figure = small_panels(codebooks, draw, across=4, width=WIDE, height=round(height * 0.75))
    for each, axes in zip(codebooks, figure.axes, strict=False):
        axes.set_title(f"codebook {each.codebook + 1}")
    return figure


def _cloud(axes: Axes, codebook: Geometry, even: float) -> None:
    points, counts = np.array(codebook.points), np.array(codebook.point_counts)
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * max(right - left, top - bottom, 1e-9)
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    axes.set_aspect("equal")
    distinct = len(np.unique(points.round(4), axis=0))  # codes that the method fixes may lie above one another
    scale = min(1.0, (_MANY / distinct) ** 0.5)
    dots(axes, points[counts == 0], 3.2 * scale, ORANGE, 0.9)
    for (least, most), diameter, strength in zip(_USE, _DIAMETERS, _STRENGTHS, strict=True):
        chosen = (counts > 0) & (counts >= least * even) & (counts < most * even)
        dots(axes, points[chosen], diameter * scale, BLUE, strength)
    bare(axes)
    axes.set(xticks=[], yticks=[])


@plot("codes", "Quantization error")
def error(statistics: Statistics) -> Figure | None:
    """Mean squared distance of latents from their code, each dot a code. Dots high at the right are codes that stand
    for too many different latents.
    """
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
    mean = f"dashed: mean {data.mean:.2g}, {percent(data.relative)} of the latents' power"
    axes.set_title(mean, loc="right", color=INK)
    axes.set_xlabel("tokens measured on" + (", first codebook" if several(statistics) else ""))
    return figure


@plot("robustness", "Decoded and encoded again")
def idempotence(statistics: Statistics) -> Figure | None:
    """Share of the tokens that stay the same when images are decoded, rounded to bytes and encoded again, pass after
    pass.
    """
    passes = [] if statistics.tokenizer is None else statistics.tokenizer.idempotence.passes
    if not passes:
        return None
    figure, axes = panel()
    numbers = np.arange(1, len(passes) + 1)
    for values, name, colour, offset in (
        ([each.same_as_last for each in passes], "as before this pass", TEAL, 9),
        ([each.same_as_first for each in passes], "as at the start", BLUE, -9),
    ):
        axes.plot(numbers, values, color=colour, marker="o", markersize=6)
        note(axes, f"{name}: {percent(values[-1])}", (numbers[-1], values[-1]), (4, offset), colour, "right")
    lowest = min(min(each.same_as_first, each.same_as_last) for each in passes)
    axes.set(xlim=(0.8 if len(passes) > 1 else 0, numbers[-1] + 0.1), xticks=numbers)
    share_axis(axes, max(0.0, lowest - 0.25))
    axes.set(title="tokens unchanged", xlabel="pass")
    return figure


@plot("robustness", "Small changes to the picture")
def sensitivity(statistics: Statistics) -> Figure | None:
    """Share of the tokens that change, beside the PSNR of the changed picture, which shows how small the change is."""
    if statistics.tokenizer is None or not statistics.tokenizer.sensitivity.disturbances:
        return None
    bars = [
        Bar(each.name, each.changed, f"{percent(each.changed)}{_decibels(each.psnr)}", ORANGE)
        for each in statistics.tokenizer.sensitivity.disturbances
    ]
    note = "measured on decoded images, no images given" if statistics.tokenizer.sensitivity.of_decoded else ""
    return bar_rows(bars, limit=1.0, note=note)


def _decibels(psnr: float | None) -> str:
    return "" if psnr is None else f"  ·  {psnr:.0f} dB"
