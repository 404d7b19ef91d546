"""Charts of characters: bars, sparklines, columns and heat maps, in Unicode's block elements.

A half block has a foreground and a background, so that one line holds two rows of a map as square cells. Colours are
those of viridis (van der Walt & Smith, 2015), whose lightness rises evenly, also for the colour-blind. A console
without 256 colours gets shades.
"""

# Axes: h x w cells of a map.

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from imtok.cli.console import printable

Values = npt.NDArray[np.floating]

_ACROSS = " ▏▎▍▌▋▊▉█"
_UP = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
_ENLARGED_ROWS, _MOST_ROWS = 20, 32  # of a map: small ones are enlarged to so many, larger ones pooled


def plain(text: str, width: int | None = None, style: str = "") -> Text:
    """Show a text without markup or control characters; a text too wide keeps its end, in which names differ."""
    shown = printable(text)
    if width is not None and cell_len(shown) > width:
        shown = "…" + set_cell_size(shown[::-1], max(width - 1, 0))[::-1].lstrip()
    return Text(shown, style)


def bar(share: float, width: int) -> str:
    """Draw `share` of `width` to an eighth of a character; a share above 0 is visible."""
    eighths = max(round(min(share, 1.0) * width * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _ACROSS[eighths % 8].strip()


class Bar(NamedTuple):
    """A row of a bar chart; a light bar continues to `upto` where that is more than `length`."""

    name: str
    length: float
    style: str
    value: str
    upto: float = 0.0


def bars(rows: Sequence[Bar], width: int, longest: float | None = None) -> Table:
    """Draw names, bars and values within `width`; a whole bar is `longest`, or the longest of the rows."""
    longest = longest or max(max(row.length, row.upto) for row in rows) or 1.0
    room = max(4, width - 2 - max(len(row.name) for row in rows) - max(len(row.value) for row in rows))
    cells = []
    for row in rows:
        solid = bar(row.length / longest, room)
        light = "░" * (round(row.upto / longest * room) - len(solid))
        cells.append((plain(row.name), Text(solid + light, row.style), row.value))
    return grid(cells, ">dim", "", ">", gap=1)


def grid(rows: Iterable[Sequence[RenderableType]], *styles: str, gap: int = 2) -> Table:
    """Draw rows in columns without lines; a style that begins with ">" aligns its column to the right."""
    table = Table.grid(padding=(0, gap))
    for index, style in enumerate(styles):
        right = style.startswith(">")
        table.add_column(style=style.lstrip(">"), justify="right" if right else "left", no_wrap=right or not index)
    for row in rows:
        table.add_row(*row)
    return table


def sparkline(shares: Sequence[float] | Values, height: int = 1) -> str:
    """Draw values in [0, 1] as columns of `height` lines, one character each; a value above 0 is visible."""
    eighths = [max(round(min(share, 1.0) * height * 8), 1 if share > 0 else 0) for share in shares]
    lines = reversed(range(height))
    return "\n".join("".join(_UP[min(max(each - 8 * line, 0), 8)] for each in eighths) for line in lines)


def resampled(points: Sequence[tuple[float, float]], width: int) -> Values:
    """Interpolate a curve at `width` even steps between its first and last point: (n, 2) -> (width,)."""
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    return np.interp(np.linspace(x[0], x[-1], width), x, y)


def heat_map(values: Sequence[Sequence[float]], low: float, high: float, width: int, *, colours: bool) -> list[Text]:
    """Draw a map (h, w), small ones enlarged in whole steps, large ones pooled by their means; last, its scale."""
    shares = (np.array(values, np.float32) - low) / ((high - low) or 1.0)
    height, across = shares.shape
    times = min(_MOST_ROWS / height, width / across)
    if times >= 1:
        times = max(1, min(_ENLARGED_ROWS // height, width // across))
    columns, lines = max(1, round(across * times)), math.ceil(height * times / 2)
    pixels = Image.fromarray(shares).resize((columns, lines * (2 if colours else 1)), Image.Resampling.BOX)
    drawn = [_line(rows, colours=colours) for rows in np.asarray(pixels).reshape(lines, -1, columns)]
    ends = f"{low:.2f} ", f" {high:.2f}"
    steps = max(columns - sum(map(len, ends)), len(_SHADES)) if colours else len(_SHADES)
    scale = _line(np.linspace([0.0], [1.0], steps).T, colours=colours)
    return [*drawn, Text.assemble(ends[0], scale, ends[1])]


def _line(rows: Values, *, colours: bool) -> Text:
    """Draw one or two rows of a map, (1 or 2, w) in [0, 1]."""
    if not colours:
        return Text("".join(_SHADES[round(min(max(share, 0.0), 1.0) * (len(_SHADES) - 1))] for share in rows[0]))
    pairs = zip(rows[0], rows[-1], strict=True)
    return Text.assemble(*(("▀", Style(color=_colour(top), bgcolor=_colour(bottom))) for top, bottom in pairs))


def _colour(share: float) -> Color:
    at = np.linspace(0, 1, len(_VIRIDIS))
    return Color.from_rgb(*(np.interp(share, at, channel) for channel in _VIRIDIS.T))
