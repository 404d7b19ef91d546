"""Tables of `imtok eval`: tokenizers and codecs below each other, or one tokenizer under several protocols.

A row is a result. Metrics stand in one table, and what codes cost and how they are used in another. Where a table is
wider than the terminal it is cut between columns, and each part has the names again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imtok.analysis.formatting import shortened
from imtok.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from imtok.evaluation.result import Result

_GAP = 2  # spaces between columns, one of them from the box
_LONGEST_NAME = 32  # characters


@dataclass(frozen=True)
class _Column:
    """A column of a table."""

    label: str
    cells: list[str]
    dim: list[str]  # what stands behind each cell, less bright; empty where nothing does

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        return max(len(self.label), *map(len, self.texts()))

    def texts(self) -> Iterator[Text]:
        """Yield the cells with their colours, all values below each other."""
        room = max(map(len, self.dim))
        for cell, dim in zip(self.cells, self.dim, strict=True):
            yield Text.assemble(cell, (f" {dim:<{room}}", "dim")) if room else Text(cell)

    def without_dim(self) -> _Column:
        """Return the column without what stands behind its cells."""
        return _plain(self.label, self.cells)


def _plain(label: str, cells: list[str]) -> _Column:
    return _Column(label, cells, [""] * len(cells))


def print_tables(console: Console, results: Sequence[Result], *, by_protocol: bool = False) -> None:
    """Print results that may stand in one table; `by_protocol` names the rows by their protocols.

    Intervals are half as wide as from the lower to the upper end; they are left out where a terminal has no room.
    """
    names = [result.protocol_name if by_protocol else shortened(result.tokenizer, _LONGEST_NAME) for result in results]
    first = _plain("protocol" if by_protocol else "", names)
    ranges = by_protocol and len(results) > 1
    metrics = [_size_column(results), *_metric_columns(results, ranges=ranges)]
    _print_columns(console, _with_range(first) if ranges else first, _padded(metrics, ranges=ranges))
    with_codes = [result for result in results if result.usage]
    if with_codes:
        console.print()
        kept = [name for name, result in zip(names, results, strict=True) if result.usage]
        _print_columns(console, _plain(first.label, kept), _code_columns(with_codes))


def _padded(columns: Sequence[_Column], *, ranges: bool) -> list[_Column]:
    """Give columns without a range an empty cell in its row."""
    rows = max(len(column.cells) for column in columns)
    if not ranges:
        return list(columns)
    return [
        _Column(column.label, [*column.cells, *[""] * (rows - len(column.cells))], [*column.dim, *[""] * rows][:rows])
        for column in columns
    ]


def _with_range(first: _Column) -> _Column:
    return _Column(first.label, [*first.cells, "range"], [*first.dim, ""])


def _size_column(results: Sequence[Result]) -> _Column:
    return _plain("bytes/image", [f"{result.bits_per_image / 8:,.0f}" for result in results])


def _metric_columns(results: Sequence[Result], *, ranges: bool) -> Iterator[_Column]:
    """Yield a column for each metric that a result has; `ranges` adds the largest value less the least."""
    for name, metric in METRICS.items():
        if not any(name in result.metrics or name in result.refused for result in results):
            continue
        cells = [_value(metric.digits, result.metrics.get(name, math.nan)) for result in results]
        dim = [half_width(metric.digits, result.intervals.get(name)) for result in results]
        if ranges:
            known = [value for result in results if (value := result.metrics.get(name)) is not None]
            cells.append(f"{max(known) - min(known):.{metric.digits}f}" if known else "-")
            dim.append("")
        yield _Column(f"{metric.label} {metric.unit}".rstrip(), cells, dim)


def _value(digits: int, value: float | None) -> str:
    """Format a value; None is infinite, and NaN is not measured."""
    if value is None:
        return "exact"
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def half_width(digits: int, interval: Sequence[float] | None) -> str:
    """Format half the width of an interval; empty where there is none."""
    return "" if interval is None else f"±{(interval[1] - interval[0]) / 2:.{digits}f}"


def _code_columns(results: Sequence[Result]) -> list[_Column]:
    """Return what codes cost and how they are used."""
    kinds: list[tuple[str, Callable[[Result], str]]] = [
        ("bits/pixel", lambda result: f"{result.bits_per_pixel:.3f}"),
        ("coded", _coded),
        ("codes used", lambda result: f"{result.usage['used']:,} of {result.usage['codebook_size']:,}"),
        ("perplexity", lambda result: f"{result.usage['perplexity']:,.1f}"),
        ("encode/s", lambda result: _rate(result.encode_images_per_second)),
        ("decode/s", lambda result: _rate(result.decode_images_per_second)),
    ]
    return [_plain(label, [of(result) for result in results]) for label, of in kinds]


def _coded(result: Result) -> str:
    coded = result.coded_bits_per_image
    return "-" if coded is None else f"{coded / result.size**2:.3f}"


def _rate(images: float | None) -> str:
    return "-" if images is None else f"{images:,.1f}"


def _print_columns(console: Console, first: _Column, columns: Sequence[_Column]) -> None:
    """Print columns behind the names, in as many tables as the terminal needs; a pipe has room for all."""
    width = console.width if console.is_terminal else math.inf
    if _width([first, *columns]) > width:
        columns = [column.without_dim() for column in columns]
    for number, part in enumerate(_parts(first, columns, width)):
        if number:
            console.print()
        room = _width([first, *part])  # of the table itself: a console cuts what it prints to its own width
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, _GAP - 1), pad_edge=False, width=room)
        for column in (first, *part):
            table.add_column(column.label, justify="left" if column is first else "right", no_wrap=True)
        for cells in zip(first.texts(), *(column.texts() for column in part), strict=True):
            table.add_row(*cells)
        console.print(table, crop=False)


def _parts(first: _Column, columns: Sequence[_Column], width: float) -> Iterator[list[_Column]]:
    """Divide columns so that each part is at most `width` wide with the names, or has one column."""
    part: list[_Column] = []
    for column in columns:
        if part and _width([first, *part, column]) > width:
            yield part
            part = []
        part.append(column)
    if part:
        yield part


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * len(columns)
