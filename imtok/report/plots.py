"""Every plot of a report, with its words, and as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.files import write_atomically
from imtok.report import context_plots, picture_plots, tokenizer_plots, use_plots
from imtok.report.rendering import png
from imtok.report.style import NARROW, plot_style
from imtok.report.words import WORDS, Section, Words, of_first_codebook


@dataclass(frozen=True, eq=False)
class Plot:
    """A drawing and the words around it."""

    name: str  # stem of its file
    words: Words
    figure: Figure

    @property
    def section(self) -> Section:
        """Where it stands in a report."""
        return self.words.section

    @property
    def title(self) -> str:
        """What stands above it."""
        return self.words.title

    @property
    def text(self) -> str:
        """How to read it."""
        return self.words.text

    @property
    def wide(self) -> bool:
        """Made for a whole desktop's width."""
        return bool(self.figure.get_figwidth() * 72 > NARROW)


OF_FIGURES: dict[str, Callable[[Statistics], Figure | None]] = {
    "frequency": use_plots.frequency,
    "rank-frequency": use_plots.rank_frequency,
    "growth": use_plots.growth,
    "codebooks": use_plots.codebooks,
    "levels": use_plots.dimensions,
    "entropy-map": context_plots.entropy_map,
    "surprisal-map": context_plots.surprisal_map,
    "neighbours": context_plots.neighbours,
    "classes": context_plots.classes,
    "norms": tokenizer_plots.norms,
    "distances": tokenizer_plots.distances,
    "code-map": tokenizer_plots.code_map,
    "error": tokenizer_plots.error,
    "idempotence": tokenizer_plots.idempotence,
    "sensitivity": tokenizer_plots.sensitivity,
}
OF_PICTURES: dict[str, Callable[[Visualisations], Figure | None]] = {
    "swatches": picture_plots.swatches,
    "reconstructions": picture_plots.reconstructions,
}
_OF_SINGLE_CODES = ("error", "swatches")


def plots(statistics: Statistics, pictures: Visualisations | None = None) -> list[Plot]:
    """The plots that these figures and pictures have something for, in the order of the report."""
    with plot_style():
        made = {name: draw(statistics) for name, draw in OF_FIGURES.items()}
        if pictures is not None:
            made |= {name: draw(pictures) for name, draw in OF_PICTURES.items()}
    words = WORDS | {name: of_first_codebook(WORDS[name], statistics.num_codebooks) for name in _OF_SINGLE_CODES}
    return [Plot(name, words[name], figure) for name, figure in made.items() if figure is not None]


def write_plots(folder: Path, made: Sequence[Plot]) -> list[Path]:
    """Each plot as `folder`/NAME.png, light, two pixels of the file for each of the plot's; the paths.

    Raises DiskError where the disk refuses.
    """
    paths = []
    for plot in made:
        paths.append(folder / f"{plot.name}.png")
        write_atomically(paths[-1], png(plot.figure, plot.title))
    return paths
