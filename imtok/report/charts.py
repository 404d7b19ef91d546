"""The kinds of drawing that plots are made of: rows of bars, histograms, dots, labelled lines, small panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from imtok.analysis.formatting import brief, shortened
from imtok.analysis.statistics import Histogram
from imtok.report.style import BLUE, INK, LINE, SOFT, WIDE, panel

_ROW = 30  # pixels
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Bar:
    """One row: a name, a bar, and a text at its end."""

    label: str
    value: float
    text: str
    colour: str = BLUE
    mark: float | None = None  # a second value on the same scale, as a stroke across the bar
    upto: float = 0.0  # the upper end of a range that begins at `value`, in a paler colour


def bar_rows(bars: Sequence[Bar], *, limit: float, note: str = "") -> Figure:
    """Draw bars below one another, each in a track that ends at `limit`; names at the left, texts at the right."""
    figure, axes = panel(24 + _ROW * len(bars) + (_ROW if note else 0))
    draw_bars(axes, bars, limit)
    if note:
        figure.suptitle(note, color=SOFT, fontsize=12)
    return figure


def bar_columns(bars: Sequence[Bar], *, limit: float) -> Figure:
    """Draw many bars in three columns across a wide figure."""
    rows = -(-len(bars) // 3)
    layout = ConstrainedLayoutEngine(wspace=0.08)
    figure = Figure(figsize=(WIDE / 72, (24 + _ROW * rows) / 72), layout=layout)
    for column, axes in enumerate(figure.subplots(1, 3)):
        draw_bars(axes, bars[column * rows : (column + 1) * rows], limit)
        axes.set_ylim(rows - 0.4, -0.6)
    return figure


def draw_bars(axes: Axes, bars: Sequence[Bar], limit: float, *, letters: int = 24) -> None:
    """Draw the bars of `bar_rows` in given axes."""
    rows = np.arange(len(bars))
    limit = limit or 1.0
    axes.barh(rows, limit, height=0.5, color=LINE, alpha=0.55)
    for values, alpha in (([bar.upto for bar in bars], 0.35), ([bar.value for bar in bars], 1.0)):
        axes.barh(rows, values, height=0.5, color=[bar.colour for bar in bars], alpha=alpha)
    for row, bar in zip(rows, bars, strict=True):
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=2, solid_capstyle="butt")
    axes.set(xlim=(0, limit), ylim=(len(bars) - 0.4, -0.6))
    axes.set_yticks(rows, [shortened(bar.label, letters) for bar in bars])
    right = axes.twinx()
    right.set(ylim=axes.get_ylim())
    right.set_yticks(rows, [bar.text for bar in bars])
    right.tick_params(labelcolor=INK)
    for each in (axes, right):
        bare(each)
        each.xaxis.set_visible(False)


def bare(axes: Axes) -> None:
    """Hide grid and spines."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def histogram(axes: Axes, data: Histogram) -> None:
    """Draw counts between edges as one filled outline."""
    axes.stairs(data.counts, data.edges, fill=True, color=BLUE, alpha=0.85)
    axes.set_ylim(0, max([*data.counts, 1]) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(round(value, 6))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))


def dots(axes: Axes, points: npt.ArrayLike, diameter: float, colour: str, alpha: float = 1.0) -> None:
    """Draw dots as one path of very short strokes with round ends, some 20 bytes each in an SVG.

    Call it when the scales and limits of the axes are set.
    """
    starts = np.asarray(points, float).reshape(-1, 2)
    if not len(starts):
        return
    low, high = axes.get_xlim()
    # Some renderers draw no stroke of length zero.
    step = starts[:, :1] * 1e-3 if axes.get_xscale() == "log" else np.full((len(starts), 1), (high - low) * 1e-4)
    ends = starts + np.hstack([step, np.zeros_like(step)])
    path = Path(np.stack([starts, ends], 1).reshape(-1, 2), [Path.MOVETO, Path.LINETO] * len(starts))
    path.should_simplify = False
    patch = PathPatch(path, fill=False, edgecolor=colour, alpha=alpha, linewidth=diameter, capstyle="round")
    patch.set(clip_on=False, snap=False)  # snapping to pixels would make the strokes' length zero
    axes.add_patch(patch)


def count_axis(axes: Axes, which: str, *, log: bool = True) -> None:
    """Let axis `which` ("x" or "y") show counts, at powers of ten where `log`, each written briefly."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(10, numticks=7))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))


def share_axis(axes: Axes, least: float) -> None:
    """Let the y axis show shares from `least` to 1, with room above for words."""
    ticks = [tick for tick in MaxNLocator(5).tick_values(least, 1) if least <= tick <= 1]
    axes.set_ylim(least, 1 + 0.1 * (1 - least))
    axes.set_yticks(ticks, [f"{100 * tick:g}%" for tick in ticks])


def level(axes: Axes, height: float, text: str, *, below: bool = False) -> None:
    """Draw a dashed line across the axes with its name above it, or below."""
    axes.axhline(height, color=SOFT, linewidth=1.2, dashes=(4, 3))
    note(axes, text, (axes.get_xlim()[0], height), (0, -5 if below else 4), SOFT)


def note(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], colour: str, align: str = "left"
) -> None:
    """Write a text `offset` pixels from a point: above it, or below where the offset goes down."""
    vertical = "top" if offset[1] < 0 else "bottom"
    axes.annotate(text, point, offset, textcoords="offset points", ha=align, va=vertical, color=colour)


def small_panels(
    items: Sequence[_Item], draw: Callable[[Axes, _Item], None], *, across: int, width: int, height: int
) -> Figure:
    """Draw each item in small axes of `height` pixels, in rows of `across`."""
    rows = -(-len(items) // across)
    figure = Figure(figsize=(width / 72, rows * height / 72), layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False).flat
    for item, axes in zip(items, grid, strict=False):
        draw(axes, item)
    for axes in grid[len(items) :]:
        axes.set_visible(False)
    return figure
