"""Plots of where codes stand: at which places, beside which others, in which classes of images.

Each function takes the figures and returns a drawing, or None where there is nothing to show.
"""

# Axes: K codes, h x w grid of an image's codes.

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.figures import Figures
from imtok.report.charts import Bar, bar_rows, draw_bars
from imtok.report.style import BLUE, HEAT, NARROW, PALE, SOFT, TEAL, number, panel, percent

MOST_CLASSES = 16
_NEAR = 0.98  # of the most that so many images can show


def entropy_map(figures: Figures) -> Figure | None:
    """Entropy by place of the grid; None where the images are too few to tell most places apart by it."""
    found = figures.positions
    if found is None or math.prod(figures.grid) < 2:
        return None
    few = np.median(found.entropy_bits) >= _NEAR * found.limit_bits
    return None if few else _heat_map(found.entropy_bits)


def surprisal_map(figures: Figures) -> Figure | None:
    """How unusual the codes of each place are."""
    if figures.positions is None or math.prod(figures.grid) < 2:
        return None
    return _heat_map(figures.positions.surprisal_bits)


def _heat_map(values: list[list[float]]) -> Figure:
    bits = np.array(values)  # (h, w)
    height, width = bits.shape
    figure, axes = panel(300)
    most = float(bits.max())
    # A scale of at least one bit: less would show noise as if it were a pattern.
    least = min(float(bits.min()), most - 1)
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


def neighbours(figures: Figures) -> Figure | None:
    """Bits a token: log2 K, entropy, what is left when a neighbour is known, and what an adaptive coder needs."""
    if not figures.tokens:
        return None
    bars = [
        _bits("log2 K", SOFT, figures.max_bits),
        _bits("entropy", BLUE, figures.own_entropy_bits),
        *(
            _bits(name, BLUE, pair.conditional_entropy_corrected_bits, pair.coded_bits)
            for name, pair in (("given left", figures.horizontal), ("given above", figures.vertical))
            if pair is not None
        ),
        _bits(f"coded, {figures.bits.coder}", TEAL, figures.bits.coded_per_token),
    ]
    limit = max(figures.max_bits, figures.bits.coded_per_token)
    share = min((pair.contexts_share for pair in (figures.horizontal, figures.vertical) if pair), default=1.0)
    return bar_rows(bars, limit=limit, note=f"neighbours of {percent(share)} of the codes" if share < 1 else "")


def _bits(name: str, colour: str, low: float, high: float | None = None) -> Bar:
    text = number(low, 2) if high is None else f"{number(low, 2)} to {number(high, 2)}"
    return Bar(name, low, text, colour, upto=high or 0.0)


def classes(figures: Figures) -> Figure | None:
    """Perplexity and divergence of the classes that differ most from all images."""
    if len(figures.classes) < 2:
        return None
    shown = sorted(figures.classes, key=lambda each: -each.divergence_bits)[:MOST_CLASSES]
    figure = Figure(figsize=(NARROW / 72, (44 + 26 * len(shown)) / 72), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    use = [Bar(each.name, each.perplexity, number(each.perplexity), PALE, each.used) for each in shown]
    apart = [Bar("", each.divergence_bits, number(each.divergence_bits, 2)) for each in shown]
    draw_bars(left, use, max(each.used for each in shown), letters=14)
    draw_bars(right, apart, max(bar.value for bar in apart))
    left.set_title("perplexity")
    right.set_title("bits apart")
    return figure
