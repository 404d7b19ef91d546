"""Plots of several token folders in one: use, growth, bits, and quality at its bits.

Folders go by letter, A for the first, each with a colour; beyond the colours there are, the letter alone tells.
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
from imtok.analysis.formatting import TOGETHER, brief, headline, several
from imtok.analysis.statistics import Statistics
from imtok.evaluation import first_metric
from imtok.report.charts import Bar, bar_rows, count_axis, share_axis
from imtok.report.plots import Plot
from imtok.report.style import PALE, SERIES, number, panel, percent, plot_style, shortened
from imtok.report.words import Words

_LETTER = 11  # pixels


def comparison_plots(all_figures: Sequence[Statistics]) -> list[Plot]:
    """The plots that at least two of the folders have something for."""
    with plot_style():
        made = {name: draw(all_figures) for name, (_, _, draw) in _PLOTS.items()}
    return [Plot(name, Words("use", *_PLOTS[name][:2]), figure) for name, figure in made.items() if figure is not None]


def letter(place: int) -> str:
    """A, B, …, Z, then AA, AB and so on."""
    before, own = divmod(place, 26)
    return (letter(before - 1) if before else "") + chr(ord("A") + own)


def colour(place: int) -> str:
    """The colour of a folder's line."""
    return SERIES[place % len(SERIES)]


def use(all_figures: Sequence[Statistics]) -> Figure | None:
    """Usage as bars, normalised perplexity as strokes."""
    bars = [
        Bar(
            label,
            head.usage,
            f"{percent(head.usage)}  ·  {number(head.perplexity)}",
            PALE,
            head.normalized_perplexity,
        )
        for label, head in zip(labels(all_figures), map(headline, all_figures), strict=True)
    ]
    return bar_rows(bars, limit=1.0, note="means over codebooks" if any(map(several, all_figures)) else "")


def bits(all_figures: Sequence[Statistics]) -> Figure | None:
    """Bits an image: coded as bars, raw as strokes."""
    bars = [
        Bar(
            label,
            each.bits.coded_per_image,
            f"{number(each.bits.coded_per_image)}  ·  {number(each.bits.raw_per_image)}",
            mark=each.bits.raw_per_image,
        )
        for label, each in zip(labels(all_figures), all_figures, strict=True)
    ]
    return bar_rows(bars, limit=max(each.bits.raw_per_image for each in all_figures))


def rank_frequency(all_figures: Sequence[Statistics]) -> Figure | None:
    """Share of the tokens over rank, both logarithmic."""
    lines = [[(rank, times / each.tokens) for rank, times in each.rank_frequency if times] for each in all_figures]
    if sum(len(line) > 1 for line in lines) < 2:
        return None
    figure, axes = panel(300)
    count_axis(axes, "x")
    count_axis(axes, "y")
    axes.yaxis.set_major_formatter(lambda value, _: f"{brief(100 * value)}%")
    _lines(axes, lines)
    axes.set_title("share of the tokens" + _together(all_figures))
    axes.set_xlabel("rank of the code", loc="right")
    return figure


def growth(all_figures: Sequence[Statistics]) -> Figure | None:
    """Share of the codebook used over images seen."""
    lines = [[(images, used / each.codebook_size) for images, used in each.growth if images] for each in all_figures]
    if sum(len(line) > 1 for line in lines) < 2:
        return None
    figure, axes = panel(300)
    count_axis(axes, "x")
    share_axis(axes, 0.0)
    _lines(axes, lines)
    axes.set_title("share of the codebook used" + _together(all_figures))
    axes.set_xlabel("images seen", loc="right")
    return figure


def quality(all_figures: Sequence[Statistics]) -> Figure | None:
    """The first metric over bits an image, coded and raw, of the sets that were measured alike, the most there are."""
    points = max(_measured_alike(all_figures), key=len, default=[])
    if len(points) < 2:
        return None
    figure, axes = panel(300)
    for place, coded, raw, value in points:
        axes.plot([coded, raw], [value] * 2, color=colour(place), linewidth=1.4, alpha=0.6)
        axes.plot([coded], [value], "o", color=colour(place), markersize=8)
    most = max(raw for _, _, raw, _ in points)
    heights = [value for *_, value in points]
    room = max(1.0, 0.25 * (max(heights) - min(heights)))
    axes.set(xlim=(0, most * 1.04), ylim=(min(heights) - room, max(heights) + room))
    _letters(axes, {place: (coded, value) for place, coded, _, value in points}, (0, 13))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: brief(value))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(f"{first_metric().label}, {first_metric().unit}".rstrip(", "))
    axes.set_xlabel("bits an image", loc="right")
    return figure


def _measured_alike(all_figures: Sequence[Statistics]) -> list[list[tuple[int, float, float, float]]]:
    """Places of sets with their bits, coded and raw, and their first metric, each list of sets that can be compared."""
    groups = defaultdict(list)
    for place, each in enumerate(all_figures):
        shown = each.tokenizer.reconstruction if each.tokenizer is not None else None
        value = shown.metrics.get(first_metric().name) if shown is not None else None
        if value is not None and each.bits.coded_per_image > 0:
            point = (place, each.bits.coded_per_image, each.bits.raw_per_image, value)
            groups[alike_in_rate_and_distortion(each)].append(point)
    return list(groups.values())


def stability(all_figures: Sequence[Statistics]) -> Figure | None:
    """Share of the tokens that stay when decoded and encoded again."""
    bars = [
        Bar(label, passes[0].same_as_first, percent(passes[0].same_as_first), colour(place))
        for place, (label, each) in enumerate(zip(labels(all_figures), all_figures, strict=True))
        if each.tokenizer is not None and (passes := each.tokenizer.idempotence.passes)
    ]
    return bar_rows(bars, limit=1.0) if len(bars) > 1 else None


def _together(all_figures: Sequence[Statistics]) -> str:
    return f", {TOGETHER}" if any(map(several, all_figures)) else ""


def labels(all_figures: Sequence[Statistics]) -> list[str]:
    """Letter and name of each, without the folders that all their paths begin or end with."""
    paths = [statistics.name.strip("/").split("/") for statistics in all_figures]
    while min(map(len, paths)) > 1 and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    while min(map(len, paths)) > 1 and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    return [f"{letter(place)}  {shortened('/'.join(path), 16)}" for place, path in enumerate(paths)]


def _lines(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Lines with their letters at their right ends."""
    ends = {}
    for place, line in enumerate(lines):
        if line:
            x, y = np.array(line, float).T
            axes.plot(x, y, color=colour(place))
            ends[place] = (float(x[-1]), float(y[-1]))
    _letters(axes, ends, (9, 0))


def _letters(axes: Axes, points: dict[int, tuple[float, float]], offset: tuple[float, float]) -> None:
    """Letters beside points, in the order of the folders where several would stand on one another."""
    taken: list[tuple[float, float]] = []
    for place, point in points.items():
        x, y = axes.transData.transform(point) + offset
        while any(abs(x - left) < _LETTER and abs(y - low) < _LETTER for left, low in taken):
            x += _LETTER
        taken.append((x, y))
        shift = np.array((x, y)) - axes.transData.transform(point)
        axes.annotate(
            letter(place),
            point,
            (shift[0], shift[1]),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour(place),
            fontweight="bold",
            annotation_clip=False,
        )


_PLOTS: dict[str, tuple[str, str, Callable[[Sequence[Statistics]], Figure | None]]] = {
    "use": ("Use", "Bar and first figure: share of the codes that occur. Stroke and second figure: perplexity.", use),
    "bits": (
        "Bits an image",
        "Bar and first figure: coded, by an adaptive coder. Stroke and second figure: raw, h w Q log2 K.",
        bits,
    ),
    "stability": (
        "Decoded and encoded again",
        "Share of the tokens that are the same after decoding, rounding to bytes and encoding.",
        stability,
    ),
    "quality": (
        "Rate and distortion",
        f"{first_metric().label} over bits an image: the dot for coded bits, the end of its line for raw ones. Up and "
        "to the left is better. Sets of other images or measured by another protocol are left out.",
        quality,
    ),
    "rank-frequency": (
        "Rank and frequency",
        "Share of the tokens of each code, the most used first. The flatter, the more even the use.",
        rank_frequency,
    ),
    "growth": ("Growth of the codes used", "Share of the codebook used after so many images.", growth),
}
