"""A plot as SVG inside a page, in the page's colours and font, and as PNG.

matplotlib's SVG is made for a file of its own: its ids, its style sheet and its fonts would meet those of other plots
in the same page. What is left of it here is the drawing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from xml.etree import ElementTree

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from imtok.report.style import COLOURS, INK, plot_style

_MARGIN, _TITLE = 12 / 72, 20 / 72  # inches
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font: (?:(\w+) )?([\d.]+px)[^;]*")  # as older versions of matplotlib write it
_FAMILY = re.compile(r"font-family: [^;]*(?:; |$)")
_COLOUR = re.compile("|".join(light for light, _ in COLOURS.values()))
_VARIABLES = {light: f"var(--{role}, {light})" for role, (light, _) in COLOURS.items()}


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element for a page: no id without `name` before it, `title` for readers that see none.

    The same figure gives the same text. Colours are the variables of `style.COLOURS`, the font is the page's.
    """
    buffer = BytesIO()
    with _rendering():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip_namespaces(root)
    for part in [*root.findall("metadata"), *root.findall("defs")]:
        if part.tag == "metadata" or part.find("style") is not None:
            root.remove(part)
    _prefix_ids(root, f"{name}-")
    for element in root.iter():
        _restyle(element)
        element.tail = None
        if element.tag != "text":
            element.text = None
    _name(root, f"{name}-title", title)
    return ElementTree.tostring(root, encoding="unicode")


def png(figure: Figure, title: str) -> bytes:
    """The figure on white below its title, two pixels of the file for each of its own."""
    buffer = BytesIO()
    with _rendering():
        width, height = figure.get_size_inches()
        margin = Bbox.from_bounds(-_MARGIN, -_MARGIN, width + 2 * _MARGIN, height + 2 * _MARGIN + _TITLE)
        heading = figure.text(0, 1 + _MARGIN / height, title, va="bottom", fontsize=14, fontweight="bold", color=INK)
        figure.savefig(
            buffer, format="png", dpi=144, facecolor="white", bbox_inches=margin, metadata={"Software": None}
        )
        heading.remove()  # a page has its own
    return buffer.getvalue()


@contextmanager
def _rendering() -> Iterator[None]:
    with plot_style(), warnings.catch_warnings():
        # Names in scripts that the font lacks: a page has fonts for them, and a PNG shows boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def _strip_namespaces(root: ElementTree.Element) -> None:
    """HTML knows `svg` without them, and `href` is `xlink:href` of old."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if key.startswith("{")]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))


def _prefix_ids(root: ElementTree.Element, prefix: str) -> None:
    """Ids that something refers to get `prefix`; the others go."""
    used = set(re.findall(r"(?:url\(#|href=\")#?([^)\"]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own in used:
            element.set("id", f"{prefix}{own}")
        for key, value in element.attrib.items():
            if key == "href" and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))


def _restyle(element: ElementTree.Element) -> None:
    for key, value in element.attrib.items():
        if key == "style":
            value = _FONT.sub(lambda found: f"font-size: {found[2]}; font-weight: {found[1] or 'normal'}", value)
            value = _FAMILY.sub("", value)
            value = _COLOUR.sub(lambda found: _VARIABLES[found[0]], value)
        if not value.startswith("data:"):
            element.set(key, _NUMBER.sub(_rounded, value))


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _name(root: ElementTree.Element, label: str, title: str) -> None:
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {
        "class": "plot",
        "role": "img",
        "aria-labelledby": label,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    words = ElementTree.Element("title", id=label)
    words.text = title
    root.insert(0, words)
