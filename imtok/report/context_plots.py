"""Plots of where codes stand: at which places, beside which others, in which classes of images.

Each function takes the figures and returns a drawing, or None where there is nothing to show.
"""

# Axes: K codes, h x w grid of an image's codes.

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis.figures import Figures, PositionMap
from imtok.report.charts import Bar, bar_rows, draw_bars
from imtok.report.style import BLUE, HEAT, NARROW, PALE, SOFT, TEAL, number, panel

MOST_CLASSES = 24


def positions(figures: Figures) -> Figure | None:
    """Entropy by place of the grid as a map."""
    if figures.positions is None or math.prod(figures.grid) < 2:
        return None
    return _heat_map(figures.positions)


def _heat_map(data: PositionMap) -> Figure:
    entropy = np.array(data.entropy_bits)  # (h, w)
    height, width = entropy.shape
    figure, axes = panel(300)
    most = float(entropy.max())
    # A scale of at least one bit: less would show noise as if it were a pattern.
    least = min(float(entropy.min()), most - 1)
    long = max(height, width) / min(height, width) > 3
    image = axes.imshow(
        entropy, cmap=HEAT, vmin=least, vmax=most, interpolation="none", aspect="auto" if long else "equal"
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
    """Bits a token, from log2 K down to what an adaptive coder needs."""
    if not figures.tokens:
        return None
    steps = [("log2 K", figures.max_bits, SOFT), ("entropy", figures.entropy_corrected_bits, BLUE)]
    for name, pair in (("given the left", figures.horizontal), ("given the one above", figures.vertical)):
        if pair is not None:
            steps.append((name, pair.conditional_entropy_corrected_bits, BLUE))
    steps.append((f"coded, {figures.bits.coder}", figures.bits.coded_per_token, TEAL))
    limit = max(value for _, value, _ in steps)
    return bar_rows([Bar(name, value, number(value, 2), colour) for name, value, colour in steps], limit=limit)


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
    left.set_title("perplexity (stroke: used)")
    right.set_title("divergence, bits")
    return figure
