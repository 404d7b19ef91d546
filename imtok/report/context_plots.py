"""Plots of where codes occur: at which positions, beside which others, in which classes of images.

The docstring of a plot is its caption.
"""

# Axes: K codes, h x w grid of an image's codes.

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.formatting import TOGETHER, contexts_share, map_range, several, tells_places_apart, token_bits
from imtok.analysis.statistics import Statistics
from imtok.report.charts import Bar, bar_rows, draw_bars
from imtok.report.plot import plot
from imtok.report.style import BLUE, HEAT, NARROW, PALE, SOFT, TEAL, panel
from imtok.report.text import number, percent

MOST_CLASSES = 16


@plot("context", "Entropy by place")
def entropy_map(statistics: Statistics) -> Figure | None:
    """Entropy of the codes at each place of the grid, over images. Dark places have much the same codes in every
    image.
    """
    found = statistics.positions
    if found is None or math.prod(statistics.grid) < 2:
        return None
    return _heat_map(found.entropy_bits) if tells_places_apart(found) else None


@plot("context", "Surprisal by place")
def surprisal_map(statistics: Statistics) -> Figure | None:
    """How rare the codes at each place are in the whole set: dark places hold common codes, pale ones rare codes."""
    if statistics.positions is None or math.prod(statistics.grid) < 2:
        return None
    return _heat_map(statistics.positions.surprisal_bits)


def _heat_map(values: list[list[float]]) -> Figure:
    bits = np.array(values)  # (h, w)
    height, width = bits.shape
    figure, axes = panel(300)
    least, most = map_range(values)
    image = axes.imshow(bits, cmap=HEAT, vmin=least, vmax=most, interpolation="none")
    axes.set_aspect("auto" if max(height, width) / min(height, width) > 3 else "equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title("bits a token")
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.04)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    return figure


@plot("context", "Bits a token")
def neighbours(statistics: Statistics) -> Figure | None:
    """The bits left of log2 K once code frequencies, then a neighbour are known. A range goes from the estimate, too
    low where pairs are few, to what an adaptive entropy coder needs. Coded: the coder that needs least, learning
    included.
    """
    if not statistics.tokens:
        return None
    colours, coder = {"log2 K": SOFT, "coded": TEAL}, {"coded": f", {statistics.bits.coder}"}
    bars = [
        Bar(
            each.name + coder.get(each.name, ""),
            each.low,
            number(each.low, 2) if each.high is None else f"{number(each.low, 2)} to {number(each.high, 2)}",
            colours.get(each.name, BLUE),
            upto=each.high or 0.0,
        )
        for each in token_bits(statistics)
    ]
    share = contexts_share(statistics)
    note = f"neighbours of {percent(share)} of the codes" if share < 1 else ""
    return bar_rows(bars, limit=max(max(bar.value, bar.upto) for bar in bars), note=note)


@plot("context", "Codes by class")
def classes(statistics: Statistics) -> Figure | None:
    """Perplexity of a class (bar), codes used in it (stroke), and the Kullback-Leibler divergence of its codes from
    those of all images; the most different first.
    """
    if len(statistics.classes) < 2:
        return None
    drawn = sorted(statistics.classes, key=lambda each: -each.divergence_bits)[:MOST_CLASSES]
    note = TOGETHER if several(statistics) else ""
    figure = Figure(figsize=(NARROW / 72, (44 + 26 * len(drawn) + (20 if note else 0)) / 72), layout="constrained")
    if note:
        figure.suptitle(note, color=SOFT, fontsize=12)
    left, right = figure.subplots(1, 2)
    use = [Bar(each.name, each.perplexity, number(each.perplexity), PALE, each.used) for each in drawn]
    apart = [Bar("", each.divergence_bits, number(each.divergence_bits, 2)) for each in drawn]
    draw_bars(left, use, max(each.used for each in drawn), letters=14)
    draw_bars(right, apart, max(bar.value for bar in apart))
    left.set_title("perplexity")
    right.set_title("KL divergence, bits")
    return figure
