"""One HTML document from the templates beside this module: escaped, loading nothing, running nothing.

A content security policy forbids scripts and every address but `data:`, so that not even a hostile name in a token
folder can make a browser fetch something.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from imtok.analysis.formatting import number, percent, printable, shortened
from imtok.analysis.visualisations import Pixels
from imtok.counted import counted
from imtok.report.explanations import explained
from imtok.report.plot import Plot
from imtok.report.style import COLOURS
from imtok.version import __version__


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own; the page leaves it out where it has no content."""

    name: str  # which is its id, too
    heading: str
    text: str
    template: str
    content: Any


def render(title: str, header: str, sections: list[Section], **context: Any) -> str:
    """Render a page of the template `header` and of `sections`; `context` is what these name."""
    full = [section for section in sections if section.content]
    page = _environment().get_template("page.html")
    return printable(page.render(title=title, header=header, sections=full, **context))


def plot_cards(plots: list[Plot]) -> list[tuple[Plot, str]]:
    """Pair each plot with the width of its card, so that no row is left with a single narrow one."""
    widths: list[str] = []
    for wide, run in groupby(plots, key=lambda plot: plot.wide):
        count = len(list(run))
        widths += ["wide"] * count if wide else _widths(count)
    return list(zip(plots, widths, strict=True))


def _widths(count: int) -> list[str]:
    """Widths of `count` narrow cards: thirds, the last two or four in halves where thirds would not come out even."""
    if count == 1:
        return ["lone"]
    halves = {0: 0, 1: min(count, 4), 2: 2}[count % 3]
    return ["third"] * (count - halves) + ["half"] * halves


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("imtok.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(counted=partial(counted, form=","), number=number, percent=percent, shortened=shortened)
    environment.filters.update(advice=_advice, explained=explained, png=_png, svg=_svg)
    environment.globals |= {"colours": COLOURS, "version": __version__}
    return environment


def _advice(text: str) -> Markup:
    """A finding's text, in which a browser does not break `--set` after its hyphens."""
    return Markup(re.sub(r"--set\b", '<span class="command">--set</span>', str(escape(text))))


def _png(pixels: Pixels) -> str:
    """(H, W, 3) uint8 as an address that holds its PNG."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return _address("png", buffer.getvalue())


def _svg(plot: Plot) -> tuple[str, str]:
    """A plot as addresses that hold its SVG, light and dark."""
    light, dark = (_address("svg+xml", text.encode()) for text in plot.svg())
    return light, dark


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
