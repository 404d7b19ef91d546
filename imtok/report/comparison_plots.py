"""Plots of several token folders in one: use, growth, bits, and quality over bits.

Each folder has a letter, A for the first, and a colour. Further folders share colours, and the letter tells them apart.
The docstring of a plot is its caption.
"""

# Axes: K codes.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.comparison import alike_in_rate_and_distortion
from imtok.analysis.formatting import TOGETHER, brief, headline, number, percent, several, shortened
from imtok.analysis.statistics import Statistics
from imtok.evaluation import first_metric
from imtok.report.charts import Bar, bar_rows, count_axis, share_axis
from imtok.report.plot import plot
from imtok.report.style import SERIES, panel
from imtok.report.token_plots import use_bar

_LETTER = 11  # pixels
_Point = tuple[float, float]


def letter(index: int) -> str:
    """Return A, B, …, Z, then AA, AB and so on."""
    before, own = divmod(index, 26)
    return (letter(before - 1) if before else "") + chr(ord("A") + own)


def colour(index: int) -> str:
    """Return the light colour of a folder's line."""
    return SERIES[index % len(SERIES)]


def labels(compared: Sequence[Statistics]) -> list[str]:
    """Return letter and name of each, without the folders that all their paths begin or end with."""
    paths = [statistics.name.strip("/").split("/") for statistics in compared]
    while min(map(len, paths)) > 1 and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    while min(map(len, paths)) > 1 and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    return [f"{letter(index)}  {shortened('/'.join(path), 16)}" for index, path in enumerate(paths)]


@plot("use", "Use")
def use(compared: Sequence[Statistics]) -> Figure | None:
    """Bar and first number: share of the codes that occur. Stroke and second number: perplexity."""
    bars = [use_bar(label, headline(each)) for label, each in zip(labels(compared), compared, strict=True)]
    return bar_rows(bars, limit=1.0, note="means over codebooks" if any(map(several, compared)) else "")


@plot("use", "Bits an image")
def bits(compared: Sequence[Statistics]) -> Figure | None:
    """Bar and first number: coded, by an adaptive coder. Stroke and second number: raw, h w Q log2 K."""
    pairs = [(each.bits.coded_per_image, each.bits.raw_per_image) for each in compared]
    bars = [
        Bar(label, coded, f"{number(coded)}  ·  {number(raw)}", mark=raw)
        for label, (coded, raw) in zip(labels(compared), pairs, strict=True)
    ]
    return bar_rows(bars, limit=max(raw for _, raw in pairs))


@plot("use", "Decoded and encoded again")
def stability(compared: Sequence[Statistics]) -> Figure | None:
    """Share of the tokens that are the same after decoding, rounding to bytes and encoding."""
    bars = [
        Bar(label, passes[0].same_as_first, percent(passes[0].same_as_first), colour(index))
        for index, (label, each) in enumerate(zip(labels(compared), compared, strict=True))
        if each.tokenizer is not None and (passes := each.tokenizer.idempotence.passes)
    ]
    return bar_rows(bars, limit=1.0) if len(bars) > 1 else None


@plot("use", "Rate and distortion")
def quality(compared: Sequence[Statistics]) -> Figure | None:
    """Quality of the reconstructions over bits an image: the dot for coded bits, the end of its line for raw ones. Up
    and to the left is better. Sets of other images or measured by another protocol are left out.
    """
    metric = first_metric()
    points = max(_measured_alike(compared, metric.name), key=len, default=[])
    if len(points) < 2:
        return None
    figure, axes = panel(300)
    for index, coded, raw, value in points:
        axes.plot([coded, raw], [value] * 2, color=colour(index), linewidth=1.4, alpha=0.6)
        axes.plot([coded], [value], "o", color=colour(index), markersize=8)
    heights = [value for *_, value in points]
    room = max(1.0, 0.25 * (max(heights) - min(heights)))
    axes.set_xlim(0, 1.04 * max(raw for _, _, raw, _ in points))
    axes.set_ylim(min(heights) - room, max(heights) + room)
    _letters(axes, {index: (coded, value) for index, coded, _, value in points}, (0, 13))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: brief(value))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set(title=f"{metric.label}, {metric.unit}".rstrip(", "), xlabel="bits an image")
    return figure


def _measured_alike(compared: Sequence[Statistics], metric: str) -> list[list[tuple[int, float, float, float]]]:
    """Indices of sets with their bits, coded and raw, and a metric, in lists of sets that can be compared."""
    groups = defaultdict(list)
    for index, each in enumerate(compared):
        found = each.tokenizer.reconstruction if each.tokenizer is not None else None
        value = found.metrics.get(metric) if found is not None else None
        if value is not None and each.bits.coded_per_image > 0:
            point = (index, each.bits.coded_per_image, each.bits.raw_per_image, value)
            groups[alike_in_rate_and_distortion(each)].append(point)
    return list(groups.values())


@plot("use", "Rank and frequency")
def rank_frequency(compared: Sequence[Statistics]) -> Figure | None:
    """Share of the tokens of each code, the most used first. The flatter, the more even the use."""
    lines = [[(rank, times / each.tokens) for rank, times in each.rank_frequency if times] for each in compared]

    def scale(axes: Axes) -> None:
        count_axis(axes, "y")
        axes.yaxis.set_major_formatter(lambda value, _: f"{brief(100 * value)}%")

    return _curves(lines, scale, f"share of the tokens{_together(compared)}", "rank of the code")


@plot("use", "Growth of the codes used")
def growth(compared: Sequence[Statistics]) -> Figure | None:
    """Share of the codebook used after so many images."""
    lines = [[(images, used / each.codebook_size) for images, used in each.growth if images] for each in compared]
    title = f"share of the codebook used{_together(compared)}"
    return _curves(lines, lambda axes: share_axis(axes, 0.0), title, "images seen")


def _together(compared: Sequence[Statistics]) -> str:
    return f", {TOGETHER}" if any(map(several, compared)) else ""


def _curves(lines: Sequence[Sequence[_Point]], scale: Callable[[Axes], None], title: str, label: str) -> Figure | None:
    """Lines with their letters at their right ends, on axes whose y axis `scale` sets; None for fewer than two."""
    if sum(len(line) > 1 for line in lines) < 2:
        return None
    figure, axes = panel(300)
    count_axis(axes, "x")
    scale(axes)
    for index, line in enumerate(lines):
        if line:
            axes.plot(*np.array(line, float).T, color=colour(index))
    _letters(axes, {index: line[-1] for index, line in enumerate(lines) if line}, (9, 0))
    axes.set(title=title, xlabel=label)
    return figure


def _letters(axes: Axes, points: dict[int, _Point], offset: _Point) -> None:
    """Letters beside points, in the order of the folders where several would cover one another."""
    taken: list[_Point] = []
    for index, point in points.items():
        origin = axes.transData.transform(point)
        x, y = origin + offset
        while any(abs(x - left) < _LETTER and abs(y - low) < _LETTER for left, low in taken):
            x += _LETTER
        taken.append((x, y))
        text = axes.annotate(
            letter(index), point, (x - origin[0], y - origin[1]), textcoords="offset points", annotation_clip=False
        )
        text.set(ha="center", va="center", color=colour(index), fontweight="bold")
