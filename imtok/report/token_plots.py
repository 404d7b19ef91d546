"""Plots of tokens: how often and how evenly codes occur, at which positions, beside which others, in which classes.

The docstring of a plot is its caption.
"""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imtok.analysis import formatting
from imtok.analysis.diagnostics import few_tokens_a_code
from imtok.analysis.formatting import TOGETHER, Headline, number, percent, several, together
from imtok.analysis.statistics import Dimension, Statistics
from imtok.report.charts import Bar, bar_columns, bar_rows, bare, count_axis, draw_bars, level, note, small_panels
from imtok.report.plot import plot
from imtok.report.style import BLUE, HEAT, INK, NARROW, ORANGE, PALE, SOFT, TEAL, WIDE, panel
from imtok.usage import Use

MOST_DIMENSIONS, MOST_CODEBOOKS, MOST_CLASSES = 36, 32, 16
_MOST_ROWS = 12


def _expected_unused(statistics: Statistics) -> str:
    """Say how many codes may stay unused, by the kind of quantizer and the size of the sample."""
    if few_tokens_a_code(statistics):
        each = statistics.tokens / statistics.codebook_size / statistics.num_codebooks
        return f"At {each:.2g} tokens per code, codes that occur never or once may only be rare; count more images."
    if statistics.dimensions:
        return "The corners of a fixed grid are rarely reached: a quarter of the codes may well stay unused."
    return "In a healthy codebook few codes occur never or once."


@plot("use", "How often codes occur", _expected_unused)
def frequency(statistics: Statistics) -> Figure | None:
    """Codes by their number of occurrences."""
    if not statistics.tokens or not statistics.frequency:
        return None
    bars = []
    for span in statistics.frequency:
        text = f"{number(span.codes)}  ·  {percent(span.codes / statistics.codebook_size)}"
        bars.append(Bar(formatting.span_name(span), span.codes, text, BLUE if span.high else ORANGE))
    return bar_rows(bars, limit=max(bar.value for bar in bars), note=TOGETHER if several(statistics) else "")


@plot("use", "Rank and frequency")
def rank_frequency(statistics: Statistics) -> Figure | None:
    """Occurrences of each code, the most used first, both axes logarithmic. A flat curve along the dashed line is even
    use; a steep fall means that few codes make up most tokens.
    """
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
        axes.plot(ends, np.exp(height + statistics.zipf_slope * (np.log(ends) - middle)), color=ORANGE, linewidth=1.4)
        slope = f"slope {number(statistics.zipf_slope, 2)}"
        axes.text(0.98, 0.94, slope, transform=axes.transAxes, ha="right", va="top", color=ORANGE)
    axes.plot(ranks, times, color=BLUE)
    axes.set(title=f"occurrences{together(statistics)}", xlabel="rank of the code")
    return figure


@plot("use", "Growth of the codes used")
def growth(statistics: Statistics) -> Figure | None:
    """Codes used after a number of images, in the order of the folder. Where the curve is flat, more images bring no
    new codes.
    """
    points = [(images, used) for images, used in statistics.growth if images > 0]
    if len(points) < 2:
        return None
    images, used = np.array(points, float).T
    size, expected = statistics.codebook_size, statistics.expected_used
    figure, axes = panel()
    count_axis(axes, "x")
    count_axis(axes, "y", log=False)
    axes.set(xlim=(images[0], images[-1]), ylim=(0, size * 1.12))
    level(axes, size, f"all {number(size)}")
    if min(size - expected, expected - statistics.used) > 0.08 * size:
        level(axes, expected, f"{number(expected)} expected of more images")
    axes.fill_between(images, used, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(images, used, color=BLUE)
    full = used[-1] > 0.85 * size  # then there is no room above the curve, but it is flat
    note(axes, number(used[-1]), (images[-1], used[-1]), (-2, -8 if full else 6), INK, "right")
    axes.set(title=f"codes used{together(statistics)}", xlabel="images seen")
    return figure


@plot("use", "Use by codebook")
def codebooks(statistics: Statistics) -> Figure | None:
    """Bar and first number: share of the codebook's codes that occur. Stroke and second number: perplexity, the stroke
    as a share of K.
    """
    if statistics.num_codebooks < 2 or not statistics.tokens:
        return None
    shown = enumerate(statistics.codebooks[:MOST_CODEBOOKS], 1)
    return bar_rows([use_bar(f"codebook {index}", each) for index, each in shown], limit=1.0)


def use_bar(label: str, use: Use | Headline) -> Bar:
    """Make the row of a codebook: usage as a bar, normalised perplexity as a stroke."""
    text = f"{percent(use.usage)}  ·  {number(use.perplexity)}"
    return Bar(label, use.usage, text, PALE, use.normalized_perplexity)


@plot("use", "Levels by dimension")
def levels(statistics: Statistics) -> Figure | None:
    """Share of the tokens at each level of a dimension. The dashed line or stroke is even use; a single tall bar means
    a dimension that carries no information.
    """
    dimensions = statistics.dimensions[:MOST_DIMENSIONS]
    if not dimensions:
        return None
    named = statistics.num_codebooks > 1
    if all(len(each.shares) == 2 for each in dimensions):
        bars = [
            Bar(_dimension_name(each, named), each.shares[1], f"{percent(each.shares[1])} plus", BLUE, 0.5)
            for each in dimensions
        ]
        return bar_columns(bars, limit=1.0) if len(bars) > _MOST_ROWS else bar_rows(bars, limit=1.0)
    across, width = (3, NARROW) if len(dimensions) <= 9 else (6, WIDE)
    return small_panels(dimensions, partial(_levels, named=named), across=across, width=width, height=116)


def _levels(axes: Axes, each: Dimension, named: bool) -> None:
    count = len(each.shares)
    axes.bar(np.arange(count), each.shares, width=0.78, color=BLUE)
    axes.axhline(1 / count, color=SOFT, linewidth=1.2, dashes=(4, 3))
    axes.set_ylim(0, max([*each.shares, 2 / count]))
    axes.set_title(f"{_dimension_name(each, named)}\n{each.entropy_bits:.2f} of {each.max_bits:.2f} bits", fontsize=10)
    axes.grid(visible=False)
    axes.yaxis.set_visible(False)
    axes.set_xticks([0, count - 1], ["0", str(count - 1)], fontsize=10)


def _dimension_name(each: Dimension, named: bool) -> str:
    """Its number, after that of its codebook where these are `named`."""
    return f"{each.codebook + 1}.{each.dimension + 1}" if named else f"dimension {each.dimension + 1}"


@plot("context", "Entropy by place")
def entropy_map(statistics: Statistics) -> Figure | None:
    """Entropy of the codes at each place of the grid, over images. Dark places have much the same codes in every
    image.
    """
    found = statistics.positions
    return _heat_map(found.entropy_bits) if found and formatting.tells_places_apart(found) else None


@plot("context", "Surprisal by place")
def surprisal_map(statistics: Statistics) -> Figure | None:
    """How rare the codes at each place are in the whole set: dark places hold common codes, pale ones rare codes."""
    return _heat_map(statistics.positions.surprisal_bits) if statistics.positions else None


def _heat_map(values: list[list[float]]) -> Figure | None:
    bits = np.array(values)  # (h, w)
    if bits.size < 2:
        return None
    height, width = bits.shape
    figure, axes = panel(300)
    least, most = formatting.map_range(values)
    image = axes.imshow(bits, cmap=HEAT, vmin=least, vmax=most, interpolation="none")
    axes.set_aspect("auto" if max(height, width) / min(height, width) > 3 else "equal")
    bare(axes)
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
    bars = []
    for each in formatting.token_bits(statistics):
        text = number(each.low, 2) + ("" if each.high is None else f" to {number(each.high, 2)}")
        name, colour = each.name + coder.get(each.name, ""), colours.get(each.name, BLUE)
        bars.append(Bar(name, each.low, text, colour, upto=each.high or 0.0))
    share = formatting.contexts_share(statistics)
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
