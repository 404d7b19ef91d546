"""The report on one token folder as one HTML file: verdict, advice, figures, plots, tables, definitions."""

from __future__ import annotations

from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.report.document import cards, document, plot_cards, section
from imtok.report.glossary import GLOSSARY, glossary
from imtok.report.markup import Markup
from imtok.report.overview import findings, header, tiles
from imtok.report.plots import plots
from imtok.report.sheets import reconstructions, swatches
from imtok.report.tables import tables
from imtok.report.words import Section

_SECTIONS: tuple[tuple[Section, str, str], ...] = (
    ("use", "Use", "Which codes occur, and how evenly."),
    ("context", "Place and neighbours", "How codes depend on place, neighbours and class."),
    ("codes", "The codebook", "The geometry of the codes, and how well they fit the latents."),
    ("robustness", "Robustness", "Whether a picture keeps its codes when it changes a little, or is encoded again."),
)


def report_page(statistics: Statistics, pictures: Visualisations | None = None) -> str:
    """The report as HTML that needs nothing beside itself; the same figures and pictures give the same text."""
    sections = []
    advice = findings(statistics)
    if advice is not None:
        sections.append(section("advice", "Further advice", "", advice))
    sections.append(section("figures", "Figures", "", tiles(statistics)))
    drawn = plots(statistics)
    for name, heading, text in _SECTIONS:
        shown = plot_cards([plot for plot in drawn if plot.section == name])
        if shown is not None:
            sections.append(section(name, heading, text, shown))
    looks = _looks(statistics, pictures)
    if looks is not None:
        sections.append(section("pictures", "Pictures", "", looks))
    listed = tables(statistics, pictures)
    if listed is not None:
        sections.append(section("tables", "Tables", "", listed))
    sections.append(section("glossary", "Definitions", GLOSSARY, glossary(statistics)))
    footer = f"Tokenizer {statistics.fingerprint[:16]}." if statistics.fingerprint else ""
    return document(f"{statistics.name} · imtok stats", header(statistics), sections, footer)


def _looks(statistics: Statistics, pictures: Visualisations | None) -> Markup | None:
    if pictures is None:
        return None
    made = reconstructions(pictures), swatches(pictures, statistics.num_codebooks)
    return cards([each for each in made if each is not None])
