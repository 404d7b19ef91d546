"""The HTML file around a report: one file that loads nothing, and its sections and cards.

A content security policy forbids scripts and every address but `data:`, so that not even a hostile name in a token
folder can make a browser fetch something.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from imtok.report.markup import Markup, element, joined
from imtok.report.plots import Plot
from imtok.report.rendering import svg
from imtok.report.style import css_variables
from imtok.version import __version__

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, header: Markup, sections: Sequence[tuple[str, str, Markup]], footer: str = "") -> str:
    """A whole HTML file of `header` and sections as (name, heading, content)."""
    links = [element("a", heading, href=f"#{name}") for name, heading, _ in sections]
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", _styles()),
    )
    body = joined(
        element("header", header, element("nav", *links, aria_label="Sections")),
        element("main", *(content for *_, content in sections)),
        element("footer", f"Made by imtok {__version__}. {footer}"),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def section(name: str, heading: str, text: str, *content: Markup | None) -> tuple[str, str, Markup]:
    """A section as `document` takes it."""
    words = element("p", text) if text else None
    return name, heading, element("section", element("h2", heading), words, *content, id=name)


def plot_cards(shown: Sequence[Plot]) -> Markup | None:
    """Plots as cards in rows of three or two, so that no row is left with a lonely one."""
    columns: list[str] = []
    narrow = 0
    for plot in [*shown, None]:
        if plot is not None and not plot.wide:
            narrow += 1
            continue
        columns += _rows(narrow) + (["wide"] if plot is not None else [])
        narrow = 0
    made = [_plot_card(plot, width) for plot, width in zip(shown, columns, strict=True)]
    return element("div", *made, class_="cards") if made else None


def _rows(count: int) -> list[str]:
    """Widths for so many cards: thirds, the last two or four in halves where thirds would not come out even."""
    if count == 1:
        return ["lone"]
    halves = {0: 0, 1: min(count, 4), 2: 2}[count % 3]
    return ["third"] * (count - halves) + ["half"] * halves


def _plot_card(plot: Plot, width: str) -> Markup:
    """A plot under its title and above the sentence how to read it; a wide one scrolls inside its card on a phone."""
    drawn = Markup(svg(plot.figure, plot.name, plot.title))
    if plot.wide:
        drawn = element("div", drawn, class_="scrolls", role="region", aria_label=plot.title, tabindex=0)
    return card(plot.title, drawn, plot.text, width)


def card(title: str, content: Markup, text: str = "", width: str = "wide", *, long: bool = False) -> Markup:
    """Content under a title and above a sentence; it may break in print where it is `long`.

    `width` is wide, half, third or lone.
    """
    classes = " ".join(["card", width, *(["long"] if long else [])])
    return element("article", element("h3", title), content, element("p", text) if text else None, class_=classes)


def cards(parts: Sequence[Markup]) -> Markup | None:
    """Cards in a grid, each as wide as it says; None where there are none."""
    return element("div", *parts, class_="cards") if parts else None


def _styles() -> Markup:
    """The style sheet: colours of the light page, of the dark one, and of paper, which is light."""
    light, dark = css_variables(0), css_variables(1)
    rules = resources.files("imtok.report").joinpath("page.css").read_text(encoding="utf-8")
    return Markup(
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{rules}"
    )
