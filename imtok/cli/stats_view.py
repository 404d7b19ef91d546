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
from imtok.analysis.figures import Figures
from imtok.analysis.shown import headline, several, together, unseen, worst
from imtok.analysis.verdict import by_grade, verdict
from imtok.cli.console import GRADE_STYLES
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


def print_figures(console: Console, figures: Figures) -> None:
    """The whole report, within the console's width; parts with nothing to say are left out."""
    _print_headline(console, figures)
    console.print()
    _print_advice(console, figures)
    console.print()
    console.print(_facts(_main_rows(figures), meanings=console.width >= _MEANINGS_FROM))
    console.print(_facts([("most used", _most_used(figures) + together(figures), "")]))
    width = (console.width - _GAP) // 2 if console.width >= _TWO_FROM else console.width
    if figures.images:
        _print_blocks(console, token_blocks(figures, width, console.width, colours=has_colours(console)), width)
    if figures.tokenizer:
        console.print()
        console.print(Text.assemble(("the tokenizer in ", "bold"), plain(figures.tokenizer.name, console.width - 17)))
        _print_blocks(console, tokenizer_blocks(figures, figures.tokenizer, width), width)


def print_comparison(console: Console, sets: Sequence[Figures]) -> None:
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


def _print_headline(console: Console, figures: Figures) -> None:
    high, wide = figures.grid
    console.print(Text.assemble(("codebook use in ", "bold"), plain(figures.name, max(20, console.width - 16))))
    made_by = f", by {figures.quantizer}" if figures.quantizer else ""
    books = f" x {figures.num_codebooks}" if figures.num_codebooks > 1 else ""
    text = (
        f"{figures.size} x {figures.size} pixels as {high} x {wide}{books} codes of {figures.codebook_size:,}{made_by}"
    )
    console.print(Text(plain(text).plain, "dim"))


def _print_advice(console: Console, figures: Figures) -> None:
    if not figures.images:
        skipped = f"; {figures.skipped:,} inputs were skipped" if figures.skipped else ""
        console.print(Text(f"no images: there are no tokens to tell anything from{skipped}", "bold yellow"))
    elif (judged := verdict(figures)).grade == "healthy":
        console.print(Text(f"{judged.word.lower()}: {judged.text}", "bold green"))
    table = Table.grid(padding=(0, 1))
    for finding in by_grade(figures.findings):
        text = Text.assemble(plain(finding.text), (f" ({finding.page})", "dim"))
        table.add_row(Text(finding.grade, GRADE_STYLES[finding.grade]), text)
    if figures.findings:
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


def _main_rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    yield "images", f"{figures.images:,}" + (f", {figures.skipped:,} inputs skipped" if figures.skipped else ""), ""
    yield "tokens", f"{figures.tokens:,}", ""
    head = headline(figures)
    used = f"{head.used:,.0f} of {figures.codebook_size:,} ({head.usage:.1%})"
    if several(figures):
        used += f", mean of {len(figures.codebooks)} codebooks"
    expected = f"more images would use {head.expected_used:,.0f} or more"
    yield "codes used", used + _worst(figures, "usage", "least", "{:.1%}"), expected
    if figures.per_256_images:
        runs = figures.per_256_images
        yield (
            "per 256 images",
            f"{runs.usage:.1%} ({runs.least:.1%} to {runs.most:.1%})",
            "usage, mean over runs of 256",
        )
    dead = f"{head.dead:,.0f}, and {head.nearly_dead:,.0f} nearly dead{_worst(figures, 'dead', 'most', '{:,}')}"
    yield (
        "dead codes",
        "; ".join(filter(None, (dead, unseen(figures)))),
        "never used; under a hundredth of an even share",
    )
    yield (
        "perplexity",
        f"{head.perplexity:,.1f} ({head.normalized_perplexity:.1%} of K)"
        + _worst(figures, "perplexity", "least", "{:,.1f}"),
        "so many equally frequent codes would say as much",
    )
    corrected = f"{head.entropy_corrected_bits:.3f} corrected"
    least = _worst(figures, "entropy_bits", "least", "{:.3f}")
    yield (
        "entropy",
        f"{head.entropy_bits:.3f} of {figures.max_bits:.3f} bits a token, {corrected}{least}",
        "corrected for the bias of few tokens a code",
    )
    yield (
        "bits an image",
        f"{figures.bits.raw_per_image:,.0f} raw, {figures.bits.coded_per_image:,.0f} coded ({figures.bits.coder})",
        f"{figures.bits.raw_per_pixel:.4f} and {figures.bits.coded_per_pixel:.4f} a pixel, by an adaptive coder",
    )
    if shared := _neighbours(figures):
        yield "neighbours", f"mutual information {shared}", "bits, from what a coder gains to the estimate"
    if head.zipf_slope is not None:
        yield (
            "evenness",
            f"Gini {head.gini:.3f}, Zipf slope {head.zipf_slope:.2f}{_worst(figures, 'gini', 'Gini most', '{:.3f}')}",
            "both 0 where all codes are used alike",
        )
    if figures.images:
        compared = "images" if figures.duplicates.images == figures.images else "images compared"
        yield (
            "duplicates",
            f"{figures.duplicates.duplicates:,} of {figures.duplicates.images:,} {compared}",
            "all codes are those of an earlier image",
        )


def _worst(figures: Figures, name: str, which: str, show: str) -> str:
    """Which codebook has the least or the most of a figure, where there are several."""
    found = worst(figures, name)
    return "" if found is None else f"; {which}: {found.place}, {show.format(found.value)}"


def _neighbours(figures: Figures) -> str:
    sides = {"across": figures.horizontal, "down": figures.vertical}
    return ", ".join(f"{mutual_information(figures, side)} {name}" for name, side in sides.items() if side)


def _most_used(figures: Figures) -> str:
    return ", ".join(f"{code} ({count / figures.tokens:.2%})" for code, count in figures.top[:_TOP]) or "none"


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
