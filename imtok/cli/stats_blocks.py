"""The charts of a token set in a terminal, each a block with a title, made for the width it is given."""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imtok.analysis.formatting import (
    contexts_share,
    map_range,
    several,
    span_name,
    tells_places_apart,
    together,
    token_bits,
)
from imtok.analysis.statistics import ClassUse, Dimension, Duplicates, PositionMap, Statistics
from imtok.cli.stats_charts import Bar, bar, bars, columns, heat_map, plain, resampled, scale, sparkline
from imtok.usage import Span, Use

_HEIGHT = 5
_NARROWEST = 10
_MOST_OWN = 3  # codes named of a class
_MOST_ROWS = 10
_MOST_DIMENSIONS = 24
_LEVELS = 16
_BETWEEN_MAPS = 4
_NUMBERS_OF_A_CODEBOOK = 26
_OWN_FROM = 72


@dataclass(frozen=True)
class Block:
    """A chart or table under its title; `wide` ones take the whole width."""

    title: str
    body: RenderableType
    wide: bool = False


def token_blocks(statistics: Statistics, width: int, whole: int, *, colours: bool) -> Iterator[Block]:
    """Those that the figures have something for, at most `width` across, wide ones at most `whole`."""
    merged = together(statistics)
    yield Block(f"codes by how often they occur{merged}", _histogram(statistics.frequency, width))
    if len(statistics.rank_frequency) > 1:
        yield Block(f"occurrences by rank, both logarithmic{merged}", _ranks(statistics.rank_frequency, width))
    if len(statistics.growth) > 1:
        yield Block(f"codes used by images seen{merged}", _growth(statistics.growth, width))
    if statistics.positions:
        yield _maps(statistics.positions, width, whole, colours=colours)
    yield Block("bits a token", _bits(statistics, width))
    if several(statistics):
        yield Block("by codebook", _codebooks(statistics.codebooks, width))
    if statistics.dimensions:
        yield Block(
            "by dimension: how its levels are used, and their bits", _dimensions(statistics.dimensions), wide=True
        )
    if statistics.classes:
        yield Block(f"by class{merged}", _classes(statistics.classes, own=whole >= _OWN_FROM), wide=True)
    if statistics.duplicates.duplicates:
        yield Block("images with the same codes", _duplicates(statistics.duplicates), wide=True)


def more(shown: int, there: int, what: str) -> list[Text]:
    """A line that says how many are not shown, where some are not."""
    return [Text(f"and {there - shown:,} more {what}", "dim")] if there > shown else []


def _histogram(spans: Sequence[Span], width: int) -> Table:
    longest = max((span.codes for span in spans), default=0) or 1
    rows = [
        Bar(span_name(span), span.codes / longest, "red" if span.high == 0 else "green", f"{span.codes:,}")
        for span in spans
    ]
    return bars(rows, width)


def _ranks(points: Sequence[tuple[int, int]], width: int) -> Group:
    """Columns over the ranks that occur; the lowest column is one occurrence."""
    most, last = points[0][1], points[-1][0]
    label = f"{most:,}"
    across = max(_NARROWEST, width - len(label) - 1)
    heights = resampled([(math.log(rank), math.log(max(count, 1))) for rank, count in points], across)
    lines = columns((heights / (math.log(most) or 1.0)).clip(0.01), _HEIGHT)
    names = [label, *[""] * (_HEIGHT - 2), "1"]
    chart = [
        Text.assemble((name.rjust(len(label)), "dim"), " ", (line, "cyan"))
        for name, line in zip(names, lines, strict=True)
    ]
    ends = "rank 1" + f"{last:,}".rjust(across - len("rank 1"))
    return Group(*chart, Text(" " * (len(label) + 1) + ends, "dim"))


def _growth(points: Sequence[tuple[int, int]], width: int) -> Group:
    images, used = points[-1]
    heights = resampled([(seen, codes / max(used, 1)) for seen, codes in points], width)
    seen = {share: next(seen for seen, codes in points if codes >= share * used) for share in (0.5, 0.9)}
    return Group(
        Text(sparkline(heights), "cyan"),
        Text(f"{used:,} by {images:,}; half by {seen[0.5]:,}, 90% by {seen[0.9]:,}", "dim"),
    )


def _maps(positions: PositionMap, width: int, whole: int, *, colours: bool) -> Block:
    """Surprisal and, unless the images are too few to tell places apart by it, entropy; each over its own scale."""
    maps = {"entropy": positions.entropy_bits, "surprisal": positions.surprisal_bits}
    note = f"{positions.images:,} images show {positions.limit_bits:.2f} at most"
    if not tells_places_apart(positions):
        del maps["entropy"]
        note = f"entropy left out: {positions.images:,} images are too few"
    wide = len(maps) * (len(positions.entropy_bits[0]) + _BETWEEN_MAPS) - _BETWEEN_MAPS > width
    room = ((whole if wide else width) + _BETWEEN_MAPS) // len(maps) - _BETWEEN_MAPS
    table = Table.grid(padding=(0, _BETWEEN_MAPS, 0, 0))
    table.add_row(*(_map(name, bits, room, colours=colours) for name, bits in maps.items()))
    return Block("bits by place in the grid", Group(table, Text(note, "dim")), wide)


def _map(name: str, bits: list[list[float]], width: int, *, colours: bool) -> Group:
    low, high = map_range(bits)
    lines = heat_map(bits, low, high, width, colours=colours)
    ends = scale(f"{low:.2f}", f"{high:.2f}", len(lines[0]), colours=colours)
    return Group(Text(name, "dim"), *lines, ends)


def _bits(statistics: Statistics, width: int) -> Group:
    """What a token takes; what it takes given a neighbour lies between an estimate, too low, and a coder's need."""
    found = token_bits(statistics)
    longest = max(max(each.low, each.high or 0.0) for each in found) or 1.0
    styles = {"log2 K": "dim", "coded": "cyan"}
    rows = [
        Bar(
            each.name,
            each.low / longest,
            styles.get(each.name, "green"),
            f"{each.low:.2f}" if each.high is None else f"{each.low:.2f} to {each.high:.2f}",
            (each.high or 0.0) / longest,
        )
        for each in found
    ]
    share = contexts_share(statistics)
    notes = [Text(f"neighbours of {share:.1%} of the codes", "dim")] if share < 1 else []
    return Group(bars(rows, width), *notes)


def _codebooks(codebooks: Sequence[Use], width: int) -> Group:
    room = max(4, width - _NUMBERS_OF_A_CODEBOOK)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column(style="green", no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right")
    table.add_row("", "", *(Text(name, "dim") for name in ("used", "perplexity", "bits")))
    for number, use in enumerate(codebooks[:_MOST_ROWS], 1):
        values = f"{use.used:,}", f"{use.perplexity:,.1f}", f"{use.entropy_corrected_bits:.2f}"
        table.add_row(f"{number}", bar(use.usage, room), *values)
    return Group(table, *more(_MOST_ROWS, len(codebooks), "codebooks"))


def _dimensions(dimensions: Sequence[Dimension]) -> Group:
    several = any(each.codebook for each in dimensions)
    cells = [_dimension(each, several) for each in dimensions[:_MOST_DIMENSIONS]]
    return Group(Columns(cells, padding=(0, 3)), *more(_MOST_DIMENSIONS, len(dimensions), "dimensions"))


def _dimension(each: Dimension, several: bool) -> Text:
    name = f"{each.codebook + 1}.{each.dimension + 1}" if several else f"{each.dimension + 1}"
    bits = f"{each.entropy_bits:.2f} of {each.max_bits:.2f}"
    shares = each.shares
    if len(shares) > _LEVELS:
        shares = resampled(list(enumerate(shares)), _LEVELS).tolist()
    line = sparkline([share / (max(shares) or 1.0) for share in shares])
    return Text.assemble((name.rjust(5 if several else 2), "dim"), " ", (line, "green"), f" {bits}")


def _classes(classes: Sequence[ClassUse], *, own: bool) -> Group:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=max(len(plain(each.name, 20)) for each in classes[:_MOST_ROWS]))
    for name in ("images", "codes used", "perplexity", "KL divergence"):
        table.add_column(justify="right", no_wrap=True, min_width=len(name))
    table.add_column(no_wrap=True, overflow="ellipsis")
    last = ["codes most its own"] if own else []
    table.add_row("", "images", "codes used", "perplexity", "KL divergence", *last, style="dim")
    for each in classes[:_MOST_ROWS]:
        most = ", ".join(f"{code} ({times:.1f}x)" for code, times in each.own[:_MOST_OWN])
        table.add_row(
            plain(each.name, 20),
            f"{each.images:,}",
            f"{each.used:,}",
            f"{each.perplexity:,.1f}",
            f"{each.divergence_bits:.2f}",
            *([most] if own else []),
        )
    return Group(table, *more(_MOST_ROWS, len(classes), "classes"))


def _duplicates(duplicates: Duplicates) -> Group:
    lines = []
    for keys in duplicates.largest:
        line = Text(" = ", "dim").join(plain(key, 30) for key in keys)
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    return Group(*lines, *more(len(lines), duplicates.groups, "such groups"))
