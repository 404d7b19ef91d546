"""Plots of where codes stand: at which places, beside which others, in which classes of images.

Each function takes the figures and returns a drawing, or None where there is nothing to show.
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
from imtok.report.style import BLUE, HEAT, NARROW, PALE, SOFT, TEAL, number, panel, percent

MOST_CLASSES = 16


def entropy_map(statistics: Statistics) -> Figure | None:
    """Entropy by place of the grid; None where the images are too few to tell most places apart by it."""
    found = statistics.positions
    if found is None or math.prod(statistics.grid) < 2:
        return None
    return _heat_map(found.entropy_bits) if tells_places_apart(found) else None


def surprisal_map(statistics: Statistics) -> Figure | None:
    """How unusual the codes of each place are."""
    if statistics.positions is None or math.prod(statistics.grid) < 2:
        return None
    return _heat_map(statistics.positions.surprisal_bits)


def _heat_map(values: list[list[float]]) -> Figure:
    bits = np.array(values)  # (h, w)
    height, width = bits.shape
    figure, axes = panel(300)
    least, most = map_range(values)
    long = max(height, width) / min(height, width) > 3
    image = axes.imshow(
        bits, cmap=HEAT, vmin=least, vmax=most, interpolation="none", aspect="auto" if long else "equal"
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title("bits a token")
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.04)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    return figure


def neighbours(statistics: Statistics) -> Figure | None:
    """Bits a token: log2 K, entropy, what is left when a neighbour is known, and what an adaptive coder needs."""
    if not statistics.tokens:
        return None
    found = token_bits(statistics)
    colours, coder = {"log2 K": SOFT, "coded": TEAL}, {"coded": f", {statistics.bits.coder}"}
    bars = [
        Bar(
            each.name + coder.get(each.name, ""),
            each.low,
            number(each.low, 2) if each.high is None else f"{number(each.low, 2)} to {number(each.high, 2)}",
            colours.get(each.name, BLUE),
            upto=each.high or 0.0,
        )
        for each in found
    ]
    limit = max(max(bar.value, bar.upto) for bar in bars)
    share = contexts_share(statistics)
    return bar_rows(bars, limit=limit, note=f"neighbours of {percent(share)} of the codes" if share < 1 else "")


def classes(statistics: Statistics) -> Figure | None:
    """Perplexity and divergence of the classes that differ most from all images."""
    if len(statistics.classes) < 2:
        return None
    shown = sorted(statistics.classes, key=lambda each: -each.divergence_bits)[:MOST_CLASSES]
    note = TOGETHER if several(statistics) else ""
    figure = Figure(figsize=(NARROW / 72, (44 + 26 * len(shown) + (20 if note else 0)) / 72), layout="constrained")
    if note:
        figure.suptitle(note, color=SOFT, fontsize=12)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    use = [Bar(each.name, each.perplexity, number(each.perplexity), PALE, each.used) for each in shown]
    apart = [Bar("", each.divergence_bits, number(each.divergence_bits, 2)) for each in shown]
    draw_bars(left, use, max(each.used for each in shown), letters=14)
    draw_bars(right, apart, max(bar.value for bar in apart))
    left.set_title("perplexity")
    right.set_title("KL divergence, bits")
    return figure
