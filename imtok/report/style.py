"""How a report looks: colours by their role, light and dark, the style of plots, and how numbers are written.

A plot is drawn in the light colours. Each of them is unlike all others, so that in a plot's SVG it can be replaced by
the page's variable of the same role, and one drawing serves light and dark mode. The colours of series differ in
lightness as well as in hue (after Okabe & Ito, 2008, "Color Universal Design").
"""

from __future__ import annotations

import re
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
# One ramp for both modes: even in lightness, and no end of it is the ground of a page.
HEAT = LinearSegmentedColormap.from_list("heat", ["#1d2b53", "#25538f", "#2f83a8", "#58b0a0", "#a8d48a", "#f4ee9b"])

_UNSOUND = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
NARROW, WIDE = 380, 800  # pixels: a card on a phone, and two cards side by side
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
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.dpi": 72,  # so that a point is a pixel
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a plot is the same everywhere
    "font.size": 12,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "legend.borderaxespad": 0,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "imtok",
    "text.color": INK,
    "text.parse_math": False,  # names with a dollar sign are names
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": 12,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def plot_style() -> AbstractContextManager[None]:
    """The settings under which plots are drawn and rendered, whatever the user's matplotlibrc says."""
    return matplotlib_style.context(["default", _STYLE])


def panel(height: int = 260, width: int = NARROW) -> tuple[Figure, Axes]:
    """A figure of so many pixels with one pair of axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def css_variables(mode: int) -> str:
    """The colours as declarations of CSS, of the light page (0) or the dark one (1)."""
    return " ".join(f"--{role}: {colours[mode]};" for role, colours in COLOURS.items())


def number(value: float, digits: int = 0) -> str:
    """With separators of thousands: 12,345 or 0.52; a minus that is one."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in per cent with one decimal; 0% and 100% are exactly that."""
    if share in (0, 1):
        return f"{share:.0%}"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}".replace("-", "−")


def sound(text: str) -> str:
    """Without what neither XML nor UTF-8 can hold, such as the bytes of a file name that is no text."""
    return _UNSOUND.sub("\N{REPLACEMENT CHARACTER}", text)


def shortened(text: str, length: int) -> str:
    """At most so many characters, the middle left out: the ends of paths and keys tell most."""
    text = sound(text)
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
