"""`imtok info`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from imtok.cli.console import facts_table, out, print_result
from imtok.cli.options import AsJson

_CLASSES = 20  # listed with their images


def info(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="A run, a token folder, an export of one, or a tokenizer, also imtok-f8 or hf://ORG/NAME.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Describe a run, a tokenizer folder, a token folder or an export of one."""
    import imtok.description

    facts = imtok.description.describe(folder)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    if len(classes := facts.get("classes") or {}) > _CLASSES:
        first = dict(list(classes.items())[:_CLASSES])
        facts["classes"] = f"{_formatted(first)} and {len(classes) - _CLASSES:,} others"
    rows = {name.replace("_", " "): _formatted(value) for name, value in facts.items()}
    console = out()
    if console.is_terminal:
        console.print(facts_table(rows))
        return
    for name, text in rows.items():
        print_result(f"{name}: {text}")


def _formatted(value: object) -> str:
    """Format a value for a person; brackets enclose what has names of its own, as the part of a quantizer has."""
    if isinstance(value, dict):
        texts = {
            name: f"({_formatted(item)})" if isinstance(item, dict) else _formatted(item)
            for name, item in value.items()
        }
        return ", ".join(f"{name} {text}" for name, text in texts.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_formatted, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
