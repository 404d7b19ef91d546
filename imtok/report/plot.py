"""A plot: a drawing with its title and caption, as SVG images for a page and as PNG for a file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from io import BytesIO, StringIO
from typing import Any, TypeVar

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from imtok.report.style import COLOURS, FONT, INK, NARROW, plot_style

FIRST_CODEBOOK = "Codes of the first codebook; in a residual quantizer, its first stage alone."
_MARGIN, _TITLE = 12 / 72, 20 / 72  # inches
_FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TAG = re.compile("<[^>]*>")  # what is written in a plot stands between tags, and stays as it is
_NUMBER, _COLOUR = re.compile(r"-?\d+\.\d{3,}"), re.compile("#[0-9a-f]{6}")
_DOT = re.compile(r"M (\S+) (\S+)L (\S+) \2(?=[M\"])")
_DARK = dict(COLOURS.values())
_Data = TypeVar("_Data")


@dataclass(frozen=True, eq=False)
class Plot:
    """A drawing and the words around it."""

    name: str  # stem of its file
    section: str  # where it stands in a report
    title: str
    caption: str  # how to read it
    figure: Figure

    @property
    def wide(self) -> bool:
        """True where the plot takes the whole width of a desktop."""
        return bool(self.figure.get_figwidth() * 72 > NARROW)

    def of_first_codebook(self) -> Plot:
        """Say in title and caption that the codes are those of the first codebook."""
        return replace(self, title=f"{self.title}, first codebook", caption=f"{self.caption} {FIRST_CODEBOOK}")

    def svg(self) -> tuple[str, str]:
        """Render as two SVG documents, in light and in dark colours; the same figure gives the same text."""
        buffer = StringIO()
        with _rendering():
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            self.figure.savefig(buffer, format="svg", metadata=nothing)
        drawn = buffer.getvalue()
        drawn = re.sub(r"\s*\n\s*", "", drawn[drawn.index("<svg") :]).replace(f"'{FONT}'", _FONTS)
        light = _TAG.sub(_rounded, drawn)
        return light, _TAG.sub(_darkened, light)

    def png(self) -> bytes:
        """Render on white below the title, two pixels of the file for each of the figure's."""
        buffer = BytesIO()
        with _rendering():
            width, height = self.figure.get_size_inches()
            margin = Bbox.from_bounds(-_MARGIN, -_MARGIN, width + 2 * _MARGIN, height + 2 * _MARGIN + _TITLE)
            top = 1 + _MARGIN / height
            heading = self.figure.text(0, top, self.title, va="bottom", fontsize=14, fontweight="bold", color=INK)
            self.figure.savefig(
                buffer, format="png", dpi=144, facecolor="white", bbox_inches=margin, metadata={"Software": None}
            )
            heading.remove()  # a page has its own
        return buffer.getvalue()


def plot(
    section: str, title: str, caption: Callable[[Any], str] | None = None
) -> Callable[[Callable[[_Data], Figure | None]], Callable[[_Data], Plot | None]]:
    """Decorate a function that draws a figure, or None for lack of data, to return a `Plot` named like the function.

    The caption is the docstring, and after it what `caption` says about the data.
    """

    def decorate(draw: Callable[[_Data], Figure | None]) -> Callable[[_Data], Plot | None]:
        @wraps(draw)
        def made(data: _Data) -> Plot | None:
            with plot_style():
                figure = draw(data)
            if figure is None:
                return None
            words = f"{draw.__doc__ or ''} {caption(data) if caption else ''}"
            return Plot(draw.__name__.replace("_", "-"), section, title, " ".join(words.split()), figure)

        return made

    return decorate


@contextmanager
def _rendering() -> Iterator[None]:
    with plot_style(), warnings.catch_warnings():
        # Names in scripts that the font lacks: a page has fonts for them, and a PNG shows boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def _rounded(tag: re.Match[str]) -> str:
    rounded = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag[0])
    return _DOT.sub(_shortened, rounded)


def _shortened(line: re.Match[str]) -> str:
    """A dot, which is a very short line to the right, in fewer bytes."""
    left, height, right = line.groups()
    return f"M{left} {height}h.03" if 0 <= float(right) - float(left) < 0.5 else line[0]


def _darkened(tag: re.Match[str]) -> str:
    return _COLOUR.sub(lambda found: _DARK.get(found[0], found[0]), tag[0])
