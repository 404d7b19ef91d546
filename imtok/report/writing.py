"""Reports and plots as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.errors import disk_errors
from imtok.files import write_atomically
from imtok.report.pages import comparison_page, report_page
from imtok.report.plot import Plot
from imtok.report.plots import compared_plots, statistics_plots
from imtok.report.sheets import code_sheet, reconstruction_sheet
from imtok.report.style import plot_style

Sets = Sequence[tuple[Statistics, Visualisations | None]]


def write_report(path: Path, sets: Sets) -> None:
    """Write the page of one token set, or that of several side by side, whole or not at all.

    A link to a file is followed, as /dev/stdout is one. Raises DiskError where the disk refuses, and OSError where
    `path` is there and no file.
    """
    page = report_page(*sets[0]) if len(sets) == 1 else comparison_page(sets)
    with disk_errors(path):
        write_atomically(path.resolve() if path.is_file() else path, page.encode())


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
    made = statistics_plots(statistics)
    if visualisations is not None:
        sheets = (code_sheet(visualisations, statistics.num_codebooks), reconstruction_sheet(visualisations))
        with plot_style():
            made += [sheet.plot() for sheet in sheets if sheet is not None]
    return made


def write_plots(folder: Path, made: Sequence[Plot]) -> int:
    """Write each plot as `folder`/NAME.png and return their number.

    Raises DiskError where the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for plot in made:
        write_atomically(folder / f"{plot.name}.png", plot.png())
    return len(made)
