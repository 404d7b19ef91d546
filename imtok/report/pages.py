"""The pages: the report on one token folder, and several token folders side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imtok.analysis.comparison import ABSENT, comparison_rows
from imtok.analysis.diagnostics import by_severity, verdict
from imtok.analysis.formatting import headline, several, together, unseen, worst
from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.errors import disk_errors
from imtok.evaluation import METRICS
from imtok.files import write_atomically
from imtok.report.comparison_plots import colour, letter
from imtok.report.glossary import REFERENCES, glossary
from imtok.report.html import Section, plot_cards, render
from imtok.report.plots import Sets, compared_plots, statistics_plots
from imtok.report.sheets import compared_sheets, sheets_of_one
from imtok.report.style import COLOURS

_PLOT_SECTIONS = (
    ("use", "Use", "Which codes occur, and how evenly."),
    ("context", "Place and neighbours", "How codes depend on place, neighbours and class."),
    ("codes", "The codebook", "The geometry of the codes, and how well they fit the latents."),
    ("robustness", "Robustness", "Whether an image keeps its codes when it changes a little, or is encoded again."),
)
_BEST = "The best of a row is bold where better means something and all were measured alike."
_ROLES = {light: role for role, (light, _) in COLOURS.items()}


def report_page(statistics: Statistics, visualisations: Visualisations | None = None) -> str:
    """Write the report as HTML that needs nothing beside itself; the same arguments give the same text."""
    judged, plots = verdict(statistics), statistics_plots(statistics)
    others = [each for each in by_severity(statistics.findings) if each is not judged.finding]
    sheets, swatches = sheets_of_one(visualisations, statistics.num_codebooks), {}
    if visualisations is not None and statistics.num_codebooks == 1:
        swatches = dict(zip(map(int, visualisations.codes), visualisations.swatches, strict=True))
    sections = [
        Section("advice", "Further advice", "", "findings.html", others),
        Section("statistics", "Statistics", "", "tiles.html", headline(statistics)),
        *(
            Section(name, heading, text, "plots.html", plot_cards([each for each in plots if each.section == name]))
            for name, heading, text in _PLOT_SECTIONS
        ),
        Section("visualisations", "Visualisations", "", "sheets.html", sheets),
        Section("tables", "Tables", "", "tables.html", _tables(statistics)),
        Section("glossary", "Definitions", "", "glossary.html", glossary(statistics)),
    ]
    return render(
        f"{statistics.name} · imtok stats",
        "report_header.html",
        sections,
        statistics=statistics,
        fingerprint=statistics.fingerprint,
        verdict=judged,
        metrics=METRICS,
        unseen=unseen,
        worst=worst,
        swatches=swatches,
        references=REFERENCES,
    )


def comparison_page(everything: Sets) -> str:
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


def write_report(path: Path, sets: Sets) -> None:
    """Write the page of one token set, or that of several side by side, whole or not at all.

    A link to a file is followed, as /dev/stdout is one. Raises DiskError where the disk refuses, and OSError where
    `path` is there and no file.
    """
    page = report_page(*sets[0]) if len(sets) == 1 else comparison_page(sets)
    with disk_errors(path):
        write_atomically(path.resolve() if path.is_file() else path, page.encode())


def _classes_title(statistics: Statistics) -> str:
    listed, there = len(statistics.classes), statistics.num_classes
    return f"Classes, the {listed} with most images of {there:,}" if there > listed else "Classes"


def _tables(statistics: Statistics) -> list[tuple[str, str, Sequence[Any], str]]:
    """List kind, title, rows and width of tables that have rows: small ones two in a row, so that none stands alone."""
    first = ", first codebook" if several(statistics) else ""
    small: list[tuple[str, str, Sequence[Any]]] = [
        ("top", f"Codes used most{together(statistics)}", statistics.top if statistics.tokens else []),
        ("codebooks", "Codebooks", statistics.codebooks if statistics.num_codebooks > 1 else []),
        ("changing", f"Codes that change most{first}", _changing(statistics)),
    ]
    large: list[tuple[str, str, Sequence[Any]]] = [
        ("classes", f"{_classes_title(statistics)}{together(statistics)}", statistics.classes),
        ("duplicates", "Images with the same codes", statistics.duplicates.largest),
    ]
    small, large = ([each for each in found if each[2]] for found in (small, large))
    paired = len(small) // 2 * 2
    return [(*each, "half") for each in small[:paired]] + [(*each, "wide") for each in (*small[paired:], *large)]


def _changing(statistics: Statistics) -> list[tuple[str, Any]]:
    """List what changed the image, with the codes that changed most, five of each."""
    if statistics.tokenizer is None:
        return []
    sources = [("encoded again", statistics.tokenizer.idempotence.least_stable)]
    sources += [(each.name, each.most_changed) for each in statistics.tokenizer.sensitivity.disturbances]
    return [(name, each) for name, codes in sources for each in codes[:5]]
