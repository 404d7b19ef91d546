"""Every plot of a report, in the order in which it stands there, and as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imtok.analysis.formatting import several
from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.errors import disk_errors
from imtok.files import write_atomically
from imtok.report import comparison_plots, token_plots, tokenizer_plots
from imtok.report.plot import Plot
from imtok.report.sheets import sheets_of_one
from imtok.report.style import plot_style

Sets = Sequence[tuple[Statistics, Visualisations | None]]

OF_ONE = (
    *(token_plots.frequency, token_plots.rank_frequency, token_plots.growth, token_plots.codebooks),
    *(token_plots.levels, token_plots.entropy_map, token_plots.surprisal_map, token_plots.neighbours),
    *(token_plots.classes, tokenizer_plots.norms, tokenizer_plots.distances, tokenizer_plots.code_map),
    *(tokenizer_plots.error, tokenizer_plots.idempotence, tokenizer_plots.sensitivity),
)
OF_SEVERAL = (
    *(comparison_plots.use, comparison_plots.bits, comparison_plots.stability, comparison_plots.quality),
    *(comparison_plots.rank_frequency, comparison_plots.growth),
)


def statistics_plots(statistics: Statistics) -> list[Plot]:
    """Draw the plots that these statistics have something for."""
    made = [each for draw in OF_ONE if (each := draw(statistics)) is not None]
    of_first = {"error"} if several(statistics) else set()  # single codes are those of the first codebook
    return [each.of_first_codebook() if each.name in of_first else each for each in made]


def compared_plots(compared: Sequence[Statistics]) -> list[Plot]:
    """Draw the plots that at least two of the token folders have something for."""
    return [each for draw in OF_SEVERAL if (each := draw(compared)) is not None]


def write_all_plots(folder: Path, sets: Sets) -> int:
    """Write every plot as a PNG: those of several sets in folders numbered from 1, beside those that compare them.

    Returns the number of plots. Raises DiskError where the disk refuses.
    """
    with disk_errors(folder):
        if len(sets) == 1:
            return write_plots(folder, all_plots(*sets[0]))
        count = write_plots(folder, compared_plots([statistics for statistics, _ in sets]))
        return count + sum(write_plots(folder / str(index), all_plots(*each)) for index, each in enumerate(sets, 1))


def all_plots(statistics: Statistics, visualisations: Visualisations | None = None) -> list[Plot]:
    """Draw the plots and sheets of one token set."""
    with plot_style():
        sheets = [sheet.plot() for sheet in sheets_of_one(visualisations, statistics.num_codebooks)]
    return statistics_plots(statistics) + sheets


def write_plots(folder: Path, made: Sequence[Plot]) -> int:
    """Write each plot as `folder`/NAME.png and return their number; raises DiskError where the disk refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in made:
        write_atomically(folder / f"{plot.name}.png", plot.png())
    return len(made)
