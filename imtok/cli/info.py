"""`imtok info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import out, print_result


def info(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run, a tokenizer or a token folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Describe any folder of imtok's."""
    import imtok.description

    facts = imtok.description.describe(folder)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = out()
    if not console.is_terminal:
        for name, value in facts.items():
            print_result(f"{name.replace('_', ' ')}: {_formatted(value)}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_formatted(value)))
    console.print(table)


def _inner(value: object) -> str:
    """Format a value, with brackets around one that has fields, such as the part of a residual quantizer."""
    return f"({_formatted(value)})" if isinstance(value, dict) else _formatted(value)


def _formatted(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inner(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_formatted(item) for item in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
