"""Charts of characters: bars, sparklines, columns and heat maps, in Unicode's block elements.

A cell of a terminal is twice as high as wide, so the half block, its foreground one row of a map and its background the
next, makes square pixels. The colours of maps are those of viridis (van der Walt & Smith, 2015): evenly lighter, and
told apart by the colour-blind. Where a console has no 256 colours a map is made of shades, each the mean of two rows.
"""

# Axes: h x w cells of a map.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from imtok.cli.console import escaped

Values = npt.NDArray[np.float64]

_ACROSS = " ▏▎▍▌▋▊▉█"
_UP = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)
_LINES_OF_A_MAP = 10
_FEWEST_STEPS = 5
_MOST_LINES_OF_A_MAP = 16


def plain(text: str, width: int | None = None) -> Text:
    """Text as it is, without markup or control characters; where too wide its end, which tells names apart."""
    shown = Text.from_markup(escaped(text), emoji=False).plain.replace("\n", "\\n")
    if width is not None and cell_len(shown) > width:
        while shown and cell_len(shown) > width - 1:
            shown = shown[1:]
        shown = "…" + shown
    return Text(shown)


def bar(share: float, width: int) -> str:
    """A bar of `share` of `width`, to an eighth of a character; what is not nothing shows."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    eighths = max(eighths, 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _ACROSS[eighths % 8].strip()


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart; `share` is of the longest bar, and shades go on to `upto` where it is more."""

    name: str
    share: float
    style: str
    value: str
    upto: float = 0.0


def bars(rows: Sequence[Bar], width: int) -> Table:
    """Names, bars and values, all within `width`."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    room = max(4, width - 2 - max(len(row.name) for row in rows) - max(len(row.value) for row in rows))
    for row in rows:
        solid = bar(row.share, room)
        shades = "░" * (round(row.upto * room) - len(solid))
        table.add_row(plain(row.name), Text(solid + shades, row.style), row.value)
    return table


def sparkline(shares: Sequence[float] | Values) -> str:
    """One character a value in [0, 1]; what is not nothing shows."""
    return columns(shares, 1)[0]


def columns(shares: Sequence[float] | Values, height: int) -> list[str]:
    """Lines, from the top, of columns as high as values in [0, 1] say; what is not nothing shows."""
    eighths = [max(round(min(share, 1.0) * height * 8), 1 if share > 0 else 0) for share in shares]
    return ["".join(_UP[min(max(each - 8 * line, 0), 8)] for each in eighths) for line in reversed(range(height))]


def resampled(points: Sequence[tuple[float, float]], width: int) -> Values:
    """Heights of a curve at `width` evenly spaced places between its first and last point: (n, 2) -> (width,)."""
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    return np.interp(np.linspace(x[0], x[-1], width), x, y)


def has_colours(console: Console) -> bool:
    """Whether a map in colours can be seen."""
    return not console.no_color and console.color_system in ("truecolor", "256")


def heat_map(values: Sequence[Sequence[float]], low: float, high: float, width: int, *, colours: bool) -> list[Text]:
    """Lines of a map (h, w) between `low` and `high`: small ones enlarged, large ones pooled to fit."""
    cells = _fitted((np.array(values, np.float64) - low) / ((high - low) or 1.0), width)
    if len(cells) % 2:
        cells = np.concatenate([cells, np.full((1, cells.shape[1]), np.nan)])
    pairs = zip(cells[::2], cells[1::2], strict=True)
    return [_in_colours(upper, lower) if colours else _in_shades(upper, lower) for upper, lower in pairs]


def scale(low: str, high: str, width: int, *, colours: bool) -> Text:
    """The colours or shades of a map from the least to the most, between their values, `width` across."""
    if not colours:
        return Text.assemble(low, " ", _SHADES, " ", high)
    steps = np.linspace(0, 1, max(_FEWEST_STEPS, width - len(low) - len(high) - 2))
    return Text.assemble(low, " ", *((" ", Style(bgcolor=_colour(step))) for step in steps), " ", high)


def _fitted(cells: Values, width: int) -> Values:
    height, across = cells.shape
    pool = math.ceil(max(height / (2 * _MOST_LINES_OF_A_MAP), across / width))
    if pool > 1:
        return _pooled(cells, pool)
    times = max(1, min(2 * _LINES_OF_A_MAP // height, width // across))
    return cells.repeat(times, axis=0).repeat(times, axis=1)


def _pooled(cells: Values, side: int) -> Values:
    """Means of squares of `side` cells; those at the right and lower edge may be smaller: (h, w) -> (h', w')."""
    padded = np.pad(cells, [(0, -length % side) for length in cells.shape], constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
    return np.asarray(np.nanmean(blocks, axis=(1, 3)))


def _in_colours(upper: Values, lower: Values) -> Text:
    line = Text()
    for top, bottom in zip(upper, lower, strict=True):
        ground = None if np.isnan(bottom) else _colour(bottom)
        line.append("▀", Style(color=_colour(top), bgcolor=ground))
    return line


def _in_shades(upper: Values, lower: Values) -> Text:
    means = np.nanmean([upper, lower], axis=0)
    return Text("".join(_SHADES[round(min(max(mean, 0.0), 1.0) * (len(_SHADES) - 1))] for mean in means))


def _colour(share: float) -> Color:
    at = np.linspace(0, 1, len(_RAMP))
    return Color.from_rgb(*(np.interp(share, at, channel) for channel in _RAMP.T))
