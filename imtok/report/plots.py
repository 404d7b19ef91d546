"""Every plot of a report, in the order in which it stands there."""

from __future__ import annotations

from collections.abc import Sequence

from imtok.analysis.formatting import several
from imtok.analysis.statistics import Statistics
from imtok.report import comparison_plots, token_plots, tokenizer_plots
from imtok.report.plot import Plot

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
