"""`imtok verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import err, escaped, out, progress_bar


def verify(
    tokens: Annotated[Path, typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`.")],
) -> None:
    """Re-hash a token folder, check every shard, and name every gap. Exit code 1 where something is wrong."""
    import imtok.tokens

    with progress_bar("verifying", "shards") as bar:
        result = imtok.tokens.verify_tokens(tokens, progress=bar)
    for problem in result.problems:
        err().print(problem, markup=False, soft_wrap=True)
    if not result.ok:
        err().print(
            f"[bold red]error:[/] {escaped(str(tokens))}: not sound, see above ({len(result.problems)} found); delete "
            "what is damaged and run the same `imtok encode` again: it makes what is missing",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    shards = "1 shard" if result.units == 1 else f"{result.units:,} shards"
    out().print(f"{tokens}: sound, {result.images:,} images in {shards}", markup=False, soft_wrap=True)
