"""`imtok verify`."""

from __future__ import annotations

import typer

from imtok.cli.console import err, escaped, print_line, print_result, progress_bar, say
from imtok.cli.options import Tokens, shown
from imtok.counted import counted


def verify(tokens: Tokens) -> None:
    """Re-hash a token folder, check every shard, and name every gap. Exit code 1 where something is wrong."""
    import imtok.tokens

    name = shown(tokens)
    with progress_bar("verifying", "shards") as bar:
        result = imtok.tokens.verify_tokens(tokens, progress=bar)
    for problem in result.problems:
        say(problem)
    if not result.ok:
        print_line(
            err(),
            f"[bold red]error:[/] {escaped(name)}: not sound, see above ({len(result.problems)} found); delete "
            "what is damaged and run the same `imtok encode` again: it makes what is missing",
        )
        raise typer.Exit(1)
    print_result(
        f"{name}: sound, {counted(result.images, 'image', form=',')} in {counted(result.units, 'shard', form=',')}"
    )
