"""The page that puts several token folders side by side, bits an image beside every figure of quality."""

from __future__ import annotations

from collections.abc import Sequence

from imtok.analysis.comparison import ABSENT, Row, comparison_rows
from imtok.analysis.statistics import Statistics
from imtok.analysis.verdict import verdict
from imtok.analysis.visualisations import Visualisations
from imtok.report.comparison_plots import colour, comparison_plots, letter
from imtok.report.document import document, plot_cards, section
from imtok.report.markup import Markup, element, joined, table
from imtok.report.overview import counted
from imtok.report.sheets import compared_reconstructions
from imtok.report.style import COLOURS


def comparison_page(everything: Sequence[tuple[Statistics, Visualisations | None]]) -> str:
    """Several token folders, at least one, in one HTML file that needs nothing beside itself."""
    statistics = [each for each, _ in everything]
    rows = comparison_rows(statistics)
    best = "The best of a row is bold where better means something and all were measured alike."
    sections = [section("figures", "Figures", best, _table(statistics, rows))]
    drawn = plot_cards(comparison_plots(statistics))
    if drawn is not None:
        sections.append(section("plots", "Plots", "", drawn))
    looks = compared_reconstructions(
        [(letter(place), pictures) for place, (_, pictures) in enumerate(everything) if pictures is not None]
    )
    if looks:
        sections.append(section("pictures", "Pictures", "", element("div", *looks, class_="cards")))
    sections.append(section("glossary", "Definitions", "Entropies are in bits.", _definitions(rows)))
    names = ", ".join(each.name for each in statistics)
    return document(f"{names} · imtok stats", _header(statistics), sections)


def _header(all_figures: Sequence[Statistics]) -> Markup:
    lines = []
    for place, statistics in enumerate(all_figures):
        judged = verdict(statistics)
        name = element("h2", _letter(place), " ", statistics.name)
        text = element("p", element("strong", judged.word), ": ", judged.text)
        lines.append(element("li", name, text, class_=f"finding {judged.grade}"))
    return joined(
        element("p", "imtok stats", class_="eyebrow"),
        element("h1", f"{counted(len(all_figures), 'token folder')} side by side"),
        element("ul", *lines, class_="findings verdicts"),
    )


def _letter(place: int) -> Markup:
    role = next(role for role, (light, _) in COLOURS.items() if light == colour(place))
    return element("span", letter(place), class_="letter", style=f"background: var(--{role})")


def _table(all_figures: Sequence[Statistics], rows: Sequence[Row]) -> Markup:
    heads = [joined(_letter(place), " ", statistics.name) for place, statistics in enumerate(all_figures)]
    cells = [[row.name, *(_cell(row, place) for place in range(len(all_figures)))] for row in rows]
    made = table(["figure", *heads], cells, label="Figures side by side")
    return element(
        "div",
        element("div", made, class_="card wide long"),
        class_="cards side-by-side",
        style=f"--columns: {len(heads) + 1}",
    )


def _cell(row: Row, place: int) -> Markup:
    """A value, bold where it is the best, with what belongs to it on a line of its own."""
    value, beside = row.values[place], row.beside[place]
    if value == ABSENT:
        return joined("–")
    figure = element("strong", value) if place == row.best else value
    return joined(figure, element("small", beside) if beside else None)


def _definitions(rows: Sequence[Row]) -> Markup:
    told = [element("div", element("dt", row.name), element("dd", row.definition)) for row in rows]
    return element("dl", *told, class_="glossary")
