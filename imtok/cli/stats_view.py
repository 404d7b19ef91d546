"""The statistics of `imtok stats` in a terminal: findings, main statistics, charts, and token sets side by side.

Names and keys come from folders that anyone may have written. They are printed as they are, never read as markup.
"""

# Axes: K codes, Q codebooks, h x w grid of an image's codes, D latent channels.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from imtok.analysis.comparison import DOMINATED_BY, comparison_rows, mutual_information
from imtok.analysis.diagnostics import by_severity, verdict
from imtok.analysis.formatting import headline, several, together, unseen, worst
from imtok.analysis.statistics import Statistics
from imtok.cli.console import SEVERITY_STYLES
from imtok.cli.stats_charts import grid, plain
from imtok.cli.stats_panels import token_panels, tokenizer_panels, wide_panels
from imtok.counted import counted

_GAP = 4  # between columns of charts
_MEANINGS_FROM, _TWO_COLUMNS_FROM = 118, 76  # characters of the console's width
_NARROWEST_SET, _WIDEST_SET, _NARROWEST_NAMES = 16, 40, 22  # columns of a comparison


def print_sets(console: Console, sets: Sequence[Statistics]) -> None:
    """Print the statistics of a token set, or of several sets side by side, within the console's width."""
    if len(sets) > 1:
        _print_comparison(console, sets)
        return
    statistics, width = sets[0], console.width
    column = (width - _GAP) // 2 if width >= _TWO_COLUMNS_FROM else width
    _print_headline(console, statistics)
    rows = [row if width >= _MEANINGS_FROM else row[:2] for row in _main_rows(statistics)]
    console.print("", grid(rows, "dim", "", "dim"), sep="\n")
    if statistics.images:
        colours = not console.no_color and console.color_system in ("truecolor", "256")
        _print_panels(console, token_panels(statistics, column, colours=colours), column)
        console.print(Group(*wide_panels(statistics)))
    if statistics.tokenizer:
        name = plain(statistics.tokenizer.name, width - 17)
        console.print(Text.assemble("\n", ("the tokenizer in ", "bold"), name))
        _print_panels(console, tokenizer_panels(statistics.tokenizer, statistics, column), column)


def _print_comparison(console: Console, sets: Sequence[Statistics]) -> None:
    """Print token sets as columns, as many beside each other as fit; a star marks the best set where there is one."""
    rows = comparison_rows(sets)
    names = min(max(len(row.name) for row in rows), max(_NARROWEST_NAMES, console.width // 4))
    at_once = max(1, (console.width - names) // (_NARROWEST_SET + 2))
    for first in range(0, len(sets), at_once):
        indices = range(first, min(first + at_once, len(sets)))
        width = min(_WIDEST_SET, (console.width - names) // len(indices) - 2)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
        table.add_column(style="dim", max_width=names)
        for index in indices:
            table.add_column(plain(sets[index].name, width), max_width=width, overflow="fold")
        for row in rows:
            cells = {each: plain(row.whole(each)) for each in indices}
            if row.best in cells:
                cells[row.best] = plain(f"{row.whole(row.best)} *", style="bold green")
            table.add_row(plain(row.name), *cells.values())
        console.print(table, "", sep="\n")
    notes = [f"{row.name}: {row.definition}" for row in rows if row.name == DOMINATED_BY]
    if any(row.best is not None for row in rows):
        notes.insert(0, "* the best, where better means something and all were measured alike")
    console.print(Text("\n".join(notes), "dim"), end="\n" * bool(notes))


def _print_headline(console: Console, statistics: Statistics) -> None:
    """Print what the tokens are, the verdict, and the findings, the most severe first."""
    side, codes = statistics.size, " x ".join(map(str, statistics.grid))
    books = f" x {statistics.num_codebooks}" if statistics.num_codebooks > 1 else ""
    made_by = f", by {statistics.quantizer}" if statistics.quantizer else ""
    text = f"{side} x {side} pixels as {codes}{books} codes of {statistics.codebook_size:,}{made_by}"
    console.print(Text.assemble(("codebook use in ", "bold"), plain(statistics.name, max(20, console.width - 16))))
    console.print(plain(text, style="dim"), end="\n" if statistics.origin else "\n\n")
    if statistics.origin:
        console.print(plain(statistics.origin.summary, style="dim"), end="\n\n")
    found = verdict(statistics)
    if not statistics.images:
        skipped = (
            f"; {counted(statistics.skipped, 'input was', 'inputs were', form=',')} skipped"
            if statistics.skipped
            else ""
        )
        console.print(Text(f"no images: there are no tokens to analyze{skipped}", "bold yellow"))
    elif found.grade == "healthy":
        console.print(Text(f"{found.word.lower()}: {found.text}", "bold green"))
    rows = [
        (Text(each.grade, SEVERITY_STYLES[each.grade]), Text.assemble(plain(each.text), (f" ({each.name})", "dim")))
        for each in by_severity(statistics.findings)
    ]
    if rows:
        console.print(grid(rows, "", "", gap=1))
        each = "the finding" if len(rows) == 1 else "each finding"
        console.print(Text(f"--report REPORT.html says more about {each}", "dim"))


def _main_rows(statistics: Statistics) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and meaning of the main statistics; those that the set lacks are left out."""
    head, bits = headline(statistics), statistics.bits
    skipped = f", {counted(statistics.skipped, 'input', form=',')} skipped" if statistics.skipped else ""

    def worst_of(name: str, label: str, style: str) -> str:
        found = worst(statistics, name)
        return f"; {label}: {found.codebook}, {found.value:{style}}" if found else ""

    yield "images", f"{statistics.images:,}{skipped}", ""
    yield "tokens", f"{statistics.tokens:,}", ""
    mean = f", mean of {len(statistics.codebooks)} codebooks" if several(statistics) else ""
    used = f"{head.used:,.0f} of {statistics.codebook_size:,} ({head.usage:.1%}){mean}"
    meaning = f"more images would use {head.expected_used:,.0f} or more"
    yield "codes used", used + worst_of("usage", "least", ".1%"), meaning
    if runs := statistics.per_256_images:
        usage = f"{runs.usage:.1%} ({runs.least:.1%} to {runs.most:.1%})"
        yield "per 256 images", usage, "usage, mean over runs of 256"
    dead = f"{head.dead:,.0f}, and {head.nearly_dead:,.0f} nearly dead{worst_of('dead', 'most', ',')}"
    dead = "; ".join(filter(None, (dead, unseen(statistics))))
    yield "dead codes", dead, "never used; under a hundredth of an even share"
    perplexity = f"{head.perplexity:,.1f} ({head.normalized_perplexity:.1%} of K)"
    meaning = "that many equally frequent codes would carry as much"
    yield "perplexity", perplexity + worst_of("perplexity", "least", ",.1f"), meaning
    entropy = f"{head.entropy_bits:.3f} of {statistics.max_bits:.3f} bits a token"
    corrected = f", {head.entropy_corrected_bits:.3f} corrected{worst_of('entropy_bits', 'least', '.3f')}"
    yield "entropy", entropy + corrected, "corrected for the bias of few tokens a code"
    coded = f"{bits.raw_per_image:,.0f} raw, {bits.coded_per_image:,.0f} coded ({bits.coder})"
    meaning = f"{bits.raw_per_pixel:.4f} and {bits.coded_per_pixel:.4f} a pixel, by an adaptive coder"
    yield "bits an image", coded, meaning
    sides = {"across": statistics.horizontal, "down": statistics.vertical}
    if shared := ", ".join(f"{mutual_information(statistics, side)} {name}" for name, side in sides.items() if side):
        yield "neighbours", f"mutual information {shared}", "bits, from what a coder gains to the estimate"
    if head.zipf_slope is not None:
        even = f"Gini {head.gini:.3f}, Zipf slope {head.zipf_slope:.2f}{worst_of('gini', 'Gini most', '.3f')}"
        yield "evenness", even, "both 0 where all codes are used alike"
    if compared := statistics.duplicates.images:
        images = "images" if compared == statistics.images else "images compared"
        found = f"{statistics.duplicates.duplicates:,} of {compared:,} {images}"
        yield "duplicates", found, "all codes are those of an earlier image"
    top = ", ".join(f"{code} ({count / statistics.tokens:.2%})" for code, count in statistics.top) or "none"
    yield "most used", top + together(statistics), "share of the tokens"


def _print_panels(console: Console, panels: Iterable[RenderableType], width: int) -> None:
    """Print panels in as many columns as fit, each below the column that is the shortest so far."""
    stacks: list[list[RenderableType]] = [[] for _ in range(console.width // width)]
    heights = [0] * len(stacks)
    for panel in panels:
        shortest = heights.index(min(heights))
        stacks[shortest].append(panel)
        heights[shortest] += len(console.render_lines(panel, console.options.update_width(width), pad=False))
    table = Table.grid(*([""] * len(stacks)), padding=(0, _GAP, 0, 0))
    for column in table.columns:
        column.width = width
    table.add_row(*(Group(*stack) for stack in stacks))
    console.print(table)
