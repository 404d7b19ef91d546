"""`imtok stats`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import out, progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from imtok.analysis import CodebookUsage

_LONGEST_BAR = 40
_TOP = 8


def stats(
    tokens: Annotated[Path, typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a token folder with units missing.")] = False,
) -> None:
    """Tell whether the codebook is alive, from the tokens alone.

    usage: share of the codes that occur. entropy: -sum p log2 p of the code shares, in bits a token, at most log2 of
    the codebook size. perplexity: 2^entropy, the number of equally frequent codes that would say as much.
    """
    import imtok.analysis

    with progress_bar("counting", "shards") as bar:
        usage = imtok.analysis.analyze(tokens, partial=partial, progress=bar)
    if as_json:
        typer.echo(json.dumps(usage.as_dict() | {"top": usage.top(_TOP)}))
        return
    console = out()
    console.print(_figures(usage, tokens))
    if usage.tokens:
        console.print()
        console.print(_histogram(usage, width=max(10, min(_LONGEST_BAR, console.width - 32))))


def _figures(usage: CodebookUsage, tokens: Path) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"codebook use in {escape(str(tokens))}", title_justify="left", show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column()
    each = {f"codebook {number}": f"{own.used:,} codes used" for number, own in enumerate(usage.codebooks, 1)}
    rows = {
        "images": f"{usage.images:,}",
        "tokens": f"{usage.tokens:,}",
        "codes used": f"{usage.used:,} of {usage.codebook_size:,} ({usage.usage:.1%})",
        **(each if len(each) > 1 else {}),
        "dead codes": f"{usage.dead:,}",
        "perplexity": f"{usage.perplexity:,.1f}",
        "entropy": f"{usage.entropy_bits:.3f} of {usage.max_bits:.3f} bits a token",
        "most used": ", ".join(f"{code} ({count / usage.tokens:.2%})" for code, count in usage.top(_TOP)) or "none",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _span(low: int, high: int) -> str:
    return {0: "never", 1: "once"}.get(high, f"{low:,} to {high:,}")


def _histogram(usage: CodebookUsage, width: int) -> Table:
    """Codes by how often they occur, in powers of ten; the longest bar has `width` characters."""
    from rich.table import Table

    table = Table(title="codes by how often they occur", title_justify="left", show_header=False, box=None)
    table.add_column(justify="right", style="dim")
    table.add_column()
    table.add_column(justify="right")
    buckets = [(_span(span.low, span.high), span.codes) for span in usage.by_frequency()]
    longest = max(number for _, number in buckets)
    for name, number in buckets:
        eighths = round(number / longest * width * 8)
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        style = "red" if name == "never" else "green"
        table.add_row(name, f"[{style}]{bar or ('▏' if number else '')}[/]", f"{number:,}")
    return table
