"""The page that puts several token folders side by side, with the bits of an image beside every metric of quality."""

from __future__ import annotations

from collections.abc import Sequence

from imtok.analysis.comparison import ABSENT, comparison_rows
from imtok.analysis.statistics import Statistics
from imtok.analysis.verdict import verdict
from imtok.analysis.visualisations import Visualisations
from imtok.report.comparison_plots import colour, letter
from imtok.report.html import Section, plot_cards, render
from imtok.report.plots import compared_plots
from imtok.report.sheets import compared_sheets
from imtok.report.style import COLOURS

_BEST = "The best of a row is bold where better means something and all were measured alike."
_ROLES = {light: role for role, (light, _) in COLOURS.items()}


def comparison_page(everything: Sequence[tuple[Statistics, Visualisations | None]]) -> str:
    """Write several token folders, at least one, as one HTML file that needs nothing beside itself."""
    statistics = [each for each, _ in everything]
    rows = comparison_rows(statistics)
    named = [(letter(index), found) for index, (_, found) in enumerate(everything) if found is not None]
    sections = [
        Section("statistics", "Statistics", _BEST, "comparison_table.html", rows),
        Section("plots", "Plots", "", "plots.html", plot_cards(compared_plots(statistics))),
        Section("visualisations", "Visualisations", "", "sheets.html", compared_sheets(named)),
        Section("glossary", "Definitions", "Entropies are in bits.", "definitions.html", rows),
    ]
    compared = [
        {"letter": letter(index), "colour": _ROLES[colour(index)], "name": each.name, "verdict": verdict(each)}
        for index, each in enumerate(statistics)
    ]
    title = f"{', '.join(each.name for each in statistics)} · imtok stats"
    return render(title, "comparison_header.html", sections, compared=compared, absent=ABSENT, fingerprint="")
