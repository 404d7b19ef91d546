"""HTML from Python: elements whose texts are escaped unless they are markup already."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from imtok.analysis.visualisations import Pixels
from imtok.report.style import sound

_VOID = {"img", "link", "meta", "col"}


class Markup(str):
    """Text that is HTML and is not escaped again."""

    __slots__ = ()


def element(tag: str, /, *children: str | None, **attributes: str | int | None) -> Markup:
    """`<tag attributes>children</tag>`; None is left out.

    An underscore at the end of an attribute's name is dropped (`class_`), others become hyphens (`aria_label`).
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(sound(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opened = f"<{tag}{words}>"
    return Markup(opened) if tag in _VOID else Markup(f"{opened}{joined(*children)}</{tag}>")


def joined(*parts: str | None) -> Markup:
    """Parts one after the other, escaped unless they are markup."""
    return Markup("".join(part if isinstance(part, Markup) else escape(sound(part)) for part in parts if part))


def picture(pixels: Pixels, alt: str, *, pixelated: bool = False) -> Markup:
    """An `<img>` that carries its PNG: (H, W, 3) uint8."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    height, width = pixels.shape[:2]
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return element("img", src=source, alt=alt, width=width, height=height, class_="pixelated" if pixelated else None)


def table(heads: list[str], rows: list[list[str]], *, words: int = 1, label: str) -> Markup:
    """A table that scrolls inside itself; the first `words` columns are text, the others figures."""

    def row(kind: str, cells: list[str]) -> Markup:
        made = []
        for place, cell in enumerate(cells):
            head = kind == "th" or place == 0
            scope = ("col" if kind == "th" else "row") if head else None
            made.append(element("th" if head else "td", cell, scope=scope, class_=None if place < words else "figure"))
        return element("tr", *made)

    return element(
        "div",
        element(
            "table",
            element("thead", row("th", heads)),
            element("tbody", *(row("td", cells) for cells in rows)),
        ),
        class_="scrolls",
        role="region",
        aria_label=label,
        tabindex=0,
    )
