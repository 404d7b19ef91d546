"""Reports and plots as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.errors import disk_errors
from imtok.files import write_atomically
from imtok.report.comparison import comparison_page
from imtok.report.comparison_plots import comparison_plots
from imtok.report.page import report_page
from imtok.report.plots import Plot, plots, write_plots

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

    Returns how many. Raises DiskError where the disk refuses.
    """
    with disk_errors(folder):
        if len(sets) == 1:
            return _write(folder, plots(*sets[0]))
        count = _write(folder, comparison_plots([statistics for statistics, _ in sets]))
        return count + sum(_write(folder / str(place), plots(*each)) for place, each in enumerate(sets, 1))


def _write(folder: Path, made: list[Plot]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return len(write_plots(folder, made))
