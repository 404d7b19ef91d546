"""`imtok verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import err, escaped, print_line, print_result, progress_bar, say, stop_on_signals
from imtok.cli.options import shown
from imtok.counted import counted


def verify(
    tokens: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Folder written by `imtok encode`, also as s3://BUCKET/FOLDER; with --against by `imtok export`.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Check an export against the token folder that it was made from."),
    ] = None,
) -> None:
    """Re-hash a token folder, check every shard, and name every gap. Exit code 1 where something is wrong.

    With --against, re-hash an export, read every image back, by the library that owns the format where it is
    installed, and compare ids, labels and keys with those of the token folder.
    """
    if against is not None:
        _verify_export(tokens, against)
    else:
        _verify_tokens(tokens)


def _verify_tokens(folder: str) -> None:
    import imtok.tokens

    if (Path(folder) / "imtok-export.json").is_file():
        raise typer.BadParameter("give the token folder that the export was made from", param_hint="--against")
    with progress_bar("verifying", "shards") as bar:
        result = imtok.tokens.verify_tokens(folder, progress=bar)
    _end_where_wrong(
        folder,
        result.problems,
        "delete what is damaged and run the same `imtok encode` again: it makes what is missing",
    )
    print_result(
        f"{folder}: sound, {counted(result.images, 'image', form=',')} in {counted(result.units, 'shard', form=',')}"
    )


def _verify_export(folder: str, against: str) -> None:
    with stop_on_signals() as should_stop, progress_bar("verifying") as bar:
        from imtok.export.verification import verify_export

        result = verify_export(folder, against, progress=bar, should_stop=should_stop)
    _end_where_wrong(folder, result.problems, "remove the folder and export the tokens again")
    print_result(
        f"{folder}: sound, {counted(result.record.num_files, 'file', form=',')} of the recorded hashes; "
        f"{counted(result.images, 'image', form=',')} read by {result.reader}, {_listed(result.compared)} as in "
        f"{shown(against)}"
    )


def _end_where_wrong(folder: str, problems: Sequence[str], remedy: str) -> None:
    """Print the problems, and end with exit code 1 where there are any."""
    for problem in problems:
        say(problem)
    if problems:
        print_line(
            err(), f"[bold red]error:[/] {escaped(folder)}: not sound, see above ({len(problems)} found); {remedy}"
        )
        raise typer.Exit(1)


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
