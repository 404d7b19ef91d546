"""The look of a report: its colours by role, light and dark, and the style of its plots.

A plot is drawn in the light colours. Each of them is unlike all others, so that a plot's SVG becomes dark by replacing
colours. The colours of series differ in lightness as well as in hue (after Okabe & Ito, 2008, "Color Universal
Design").
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# role: (light, dark)
COLOURS = {
    "ink": ("#17212b", "#e7ecf1"),
    "soft": ("#566270", "#9dabb8"),
    "line": ("#dde2e8", "#303a45"),
    "card": ("#ffffff", "#171d24"),
    "page": ("#f4f6f8", "#0e1216"),
    "blue": ("#1f69b3", "#64aef5"),
    "pale": ("#b5d2ee", "#2c5077"),
    "orange": ("#b4560a", "#f39a4c"),
    "teal": ("#11735d", "#45c7a4"),
    "plum": ("#96418b", "#d78fce"),
    "gold": ("#7d6000", "#dfc04a"),
    "red": ("#b3261e", "#f28b82"),
}
INK, SOFT, LINE, _, _, BLUE, PALE, ORANGE, TEAL, PLUM, GOLD, _ = (light for light, _ in COLOURS.values())
SERIES = (BLUE, ORANGE, TEAL, PLUM, GOLD, SOFT)
# One ramp for both modes: even in lightness, and neither end is the background of a page.
HEAT = LinearSegmentedColormap.from_list("heat", ["#1d2b53", "#25538f", "#2f83a8", "#58b0a0", "#a8d48a", "#f4ee9b"])

NARROW, WIDE = 380, 800  # pixels: a card on a phone, and two cards side by side
FONT = "DejaVu Sans"  # comes with matplotlib, so a plot is the same everywhere
_TICKS = {"color": LINE, "labelcolor": SOFT, "labelsize": 12, "major.size": 0, "minor.size": 0}
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": SOFT,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.titlecolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.dpi": 72,  # so that a point is a pixel
    "figure.facecolor": "none",
    "font.family": FONT,
    "font.size": 12,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "xaxis.labellocation": "right",
    "svg.fonttype": "none",
    "svg.hashsalt": "imtok",
    "text.color": INK,
    "text.parse_math": False,  # names with a dollar sign are names
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top"), False),
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in _TICKS.items()},
}


def plot_style() -> AbstractContextManager[None]:
    """Set the style in which plots are drawn and rendered, whatever the user's matplotlibrc says."""
    return matplotlib_style.context(["default", _STYLE])


def panel(height: int = 260, width: int = NARROW) -> tuple[Figure, Axes]:
    """Make a figure of so many pixels with one pair of axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()
