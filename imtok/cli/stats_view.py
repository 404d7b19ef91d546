"""The figures of `imtok stats` in a terminal: advice, main figures, charts, and token sets side by side.

Names and keys come from folders that anyone may have written: they are shown as they are, never read as markup.
"""

# Axes: K codes, h x w grid of an image's codes.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from imtok.analysis.comparison import Row, comparison_rows, mutual_information
from imtok.analysis.formatting import headline, several, together, unseen, worst
from imtok.analysis.statistics import Statistics
from imtok.analysis.verdict import by_severity, verdict
from imtok.cli.console import SEVERITY_STYLES
from imtok.cli.stats_blocks import Block, token_blocks
from imtok.cli.stats_charts import has_colours, plain
from imtok.cli.stats_tokenizer_blocks import tokenizer_blocks

_GAP = 4
_MEANINGS_FROM = 118
_TWO_FROM = 76
_TOP = 8
_NAMES = 14
_NARROWEST_SET = 16
_NARROWEST_NAMES = 22
_WIDEST_SET = 40


def print_figures(console: Console, statistics: Statistics) -> None:
    """The whole report, within the console's width; parts with nothing to say are left out."""
    _print_headline(console, statistics)
    console.print()
    _print_advice(console, statistics)
    console.print()
    console.print(_facts(_main_rows(statistics), meanings=console.width >= _MEANINGS_FROM))
    console.print(_facts([("most used", _most_used(statistics) + together(statistics), "")]))
    width = (console.width - _GAP) // 2 if console.width >= _TWO_FROM else console.width
    if statistics.images:
        _print_blocks(console, token_blocks(statistics, width, console.width, colours=has_colours(console)), width)
    if statistics.tokenizer:
        console.print()
        console.print(
            Text.assemble(("the tokenizer in ", "bold"), plain(statistics.tokenizer.name, console.width - 17))
        )
        _print_blocks(console, tokenizer_blocks(statistics, statistics.tokenizer, width), width)


def print_comparison(console: Console, sets: Sequence[Statistics]) -> None:
    """Token sets as columns, as many beside each other as fit; a star at the best where there is one."""
    rows = comparison_rows(sets)
    names = min(max(len(row.name) for row in rows), max(_NARROWEST_NAMES, console.width // 4))
    together = max(1, (console.width - names) // (_NARROWEST_SET + 2))
    for first in range(0, len(sets), together):
        places = range(first, min(first + together, len(sets)))
        width = min(_WIDEST_SET, (console.width - names) // len(places) - 2)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
        table.add_column(style="dim", max_width=names)
        for place in places:
            table.add_column(plain(sets[place].name, width), max_width=width, overflow="fold")
        for row in rows:
            table.add_row(plain(row.name), *(_compared(row, place) for place in places))
        console.print(table)
        console.print()
    if any(row.best is not None for row in rows):
        console.print(Text("* the best, where better means something and all were measured alike", "dim"))
    for row in rows:
        if row.key == "dominated-by":
            console.print(Text(f"{row.name}: {row.definition}", "dim"))


def _compared(row: Row, place: int) -> Text:
    text = plain(row.whole(place))
    if row.best == place:
        text.append(" *")
        text.stylize("bold green")
    return text


def _print_headline(console: Console, statistics: Statistics) -> None:
    high, wide = statistics.grid
    console.print(Text.assemble(("codebook use in ", "bold"), plain(statistics.name, max(20, console.width - 16))))
    made_by = f", by {statistics.quantizer}" if statistics.quantizer else ""
    books = f" x {statistics.num_codebooks}" if statistics.num_codebooks > 1 else ""
    side, codes = statistics.size, f"{statistics.codebook_size:,}"
    text = f"{side} x {side} pixels as {high} x {wide}{books} codes of {codes}{made_by}"
    console.print(Text(plain(text).plain, "dim"))


def _print_advice(console: Console, statistics: Statistics) -> None:
    if not statistics.images:
        skipped = f"; {statistics.skipped:,} inputs were skipped" if statistics.skipped else ""
        console.print(Text(f"no images: there are no tokens to tell anything from{skipped}", "bold yellow"))
    elif (judged := verdict(statistics)).grade == "healthy":
        console.print(Text(f"{judged.word.lower()}: {judged.text}", "bold green"))
    table = Table.grid(padding=(0, 1))
    for finding in by_severity(statistics.findings):
        text = Text.assemble(plain(finding.text), (f" ({finding.page})", "dim"))
        table.add_row(Text(finding.grade, SEVERITY_STYLES[finding.grade]), text)
    if statistics.findings:
        console.print(table)


def _facts(rows: Iterable[tuple[str, str, str]], *, meanings: bool = False) -> Table:
    """Name, value and, where they are wanted, meaning."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=_NAMES)
    table.add_column()
    table.add_column(style="dim")
    for name, value, meaning in rows:
        table.add_row(name, value, *([meaning] if meanings else []))
    return table


def _main_rows(statistics: Statistics) -> Iterator[tuple[str, str, str]]:
    yield (
        "images",
        f"{statistics.images:,}" + (f", {statistics.skipped:,} inputs skipped" if statistics.skipped else ""),
        "",
    )
    yield "tokens", f"{statistics.tokens:,}", ""
    head = headline(statistics)
    used = f"{head.used:,.0f} of {statistics.codebook_size:,} ({head.usage:.1%})"
    if several(statistics):
        used += f", mean of {len(statistics.codebooks)} codebooks"
    expected = f"more images would use {head.expected_used:,.0f} or more"
    yield "codes used", used + _worst(statistics, "usage", "least", "{:.1%}"), expected
    if statistics.per_256_images:
        runs = statistics.per_256_images
        yield (
            "per 256 images",
            f"{runs.usage:.1%} ({runs.least:.1%} to {runs.most:.1%})",
            "usage, mean over runs of 256",
        )
    dead = f"{head.dead:,.0f}, and {head.nearly_dead:,.0f} nearly dead{_worst(statistics, 'dead', 'most', '{:,}')}"
    yield (
        "dead codes",
        "; ".join(filter(None, (dead, unseen(statistics)))),
        "never used; under a hundredth of an even share",
    )
    yield (
        "perplexity",
        f"{head.perplexity:,.1f} ({head.normalized_perplexity:.1%} of K)"
        + _worst(statistics, "perplexity", "least", "{:,.1f}"),
        "so many equally frequent codes would say as much",
    )
    corrected = f"{head.entropy_corrected_bits:.3f} corrected"
    least = _worst(statistics, "entropy_bits", "least", "{:.3f}")
    yield (
        "entropy",
        f"{head.entropy_bits:.3f} of {statistics.max_bits:.3f} bits a token, {corrected}{least}",
        "corrected for the bias of few tokens a code",
    )
    bits = statistics.bits
    yield (
        "bits an image",
        f"{bits.raw_per_image:,.0f} raw, {bits.coded_per_image:,.0f} coded ({bits.coder})",
        f"{bits.raw_per_pixel:.4f} and {bits.coded_per_pixel:.4f} a pixel, by an adaptive coder",
    )
    if shared := _neighbours(statistics):
        yield "neighbours", f"mutual information {shared}", "bits, from what a coder gains to the estimate"
    if head.zipf_slope is not None:
        worst = _worst(statistics, "gini", "Gini most", "{:.3f}")
        yield (
            "evenness",
            f"Gini {head.gini:.3f}, Zipf slope {head.zipf_slope:.2f}{worst}",
            "both 0 where all codes are used alike",
        )
    if statistics.images:
        compared = "images" if statistics.duplicates.images == statistics.images else "images compared"
        yield (
            "duplicates",
            f"{statistics.duplicates.duplicates:,} of {statistics.duplicates.images:,} {compared}",
            "all codes are those of an earlier image",
        )


def _worst(statistics: Statistics, name: str, which: str, show: str) -> str:
    """Which codebook has the least or the most of a figure, where there are several."""
    found = worst(statistics, name)
    return "" if found is None else f"; {which}: {found.place}, {show.format(found.value)}"


def _neighbours(statistics: Statistics) -> str:
    sides = {"across": statistics.horizontal, "down": statistics.vertical}
    return ", ".join(f"{mutual_information(statistics, side)} {name}" for name, side in sides.items() if side)


def _most_used(statistics: Statistics) -> str:
    return ", ".join(f"{code} ({count / statistics.tokens:.2%})" for code, count in statistics.top[:_TOP]) or "none"


def _print_blocks(console: Console, blocks: Iterable[Block], width: int) -> None:
    """Two columns where two fit, each block into the one that is shorter so far; wide blocks below."""
    stacks: list[list[RenderableType]] = [[] for _ in range(console.width // width)]
    heights = [0] * len(stacks)
    wide = []
    for block in blocks:
        whole = Group("", Text(block.title, "bold"), block.body)
        if block.wide:
            wide.append(whole)
            continue
        shorter = heights.index(min(heights))
        stacks[shorter].append(whole)
        heights[shorter] += len(console.render_lines(whole, console.options.update_width(width), pad=False))
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for _ in stacks:
        table.add_column(width=width)
    table.add_row(*(Group(*stack) for stack in stacks))
    console.print(table)
    for whole in wide:
        console.print(whole)
