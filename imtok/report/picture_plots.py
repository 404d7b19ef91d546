"""Sheets of pictures: what codes look like, and what comes back of images."""

# Axes: n codes shown, m images shown, f pixels a side of a code's patch, S side of an image.

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imtok.analysis.visualisations import Pixels, Visualisations
from imtok.report.style import SOFT, WIDE, shortened

_ACROSS_CODES, _MOST_CODES = 16, 128
_ACROSS_IMAGES = 4
_GAP, _WORDS = 8, 18  # pixels


def swatches(pictures: Visualisations) -> Figure | None:
    """Decoded swatches above the mean patches of the images, in order of use."""
    shown = min(len(pictures.codes), _MOST_CODES)
    if not shown:
        return None
    side = WIDE / _ACROSS_CODES - _GAP
    cell = 2 * side + _WORDS + _GAP
    figure, axes = _sheet(-(-shown // _ACROSS_CODES) * cell)
    for place in range(shown):
        left, top = place % _ACROSS_CODES * (side + _GAP) + _GAP / 2, place // _ACROSS_CODES * cell
        _show(axes, pictures.swatches[place], left, top, side, smooth=False)
        if pictures.patch_counts[place]:
            _show(axes, pictures.patches[place], left, top + side + 2, side, smooth=False)
        _caption(axes, str(pictures.codes[place]), left + side / 2, top + 2 * side + 4)
    return figure


def reconstructions(pictures: Visualisations) -> Figure | None:
    """Originals above reconstructions, where there are originals; else what the tokens decode to."""
    shown = len(pictures.decoded)
    if not shown:
        return None
    across = min(_ACROSS_IMAGES, max(shown, 2))
    stacked = [pictures.decoded] if pictures.originals is None else [pictures.originals, pictures.decoded]
    side = WIDE / across - _GAP
    cell = len(stacked) * (side + 2) + _WORDS + _GAP
    figure, axes = _sheet(-(-shown // across) * cell)
    for place in range(shown):
        left, top = place % across * (side + _GAP) + _GAP / 2, place // across * cell
        for row, images in enumerate(stacked):
            _show(axes, images[place], left, top + row * (side + 2), side, smooth=True)
        _caption(axes, shortened(pictures.keys[place], 28), left + side / 2, top + len(stacked) * (side + 2) + 2)
    return figure


def _sheet(height: float) -> tuple[Figure, Axes]:
    """A figure without axes to be seen, measured in pixels from its upper left corner."""
    figure = Figure(figsize=(WIDE / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, WIDE), ylim=(height, 0))
    return figure, axes


def _show(axes: Axes, pixels: Pixels, left: float, top: float, side: float, *, smooth: bool) -> None:
    extent = (left, left + side, top + side, top)
    axes.imshow(pixels, extent=extent, interpolation="antialiased" if smooth else "nearest")


def _caption(axes: Axes, text: str, x: float, y: float) -> None:
    axes.text(x, y, text, ha="center", va="top", color=SOFT, fontsize=10)
