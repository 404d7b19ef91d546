"""`imtok push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import print_result, say, warn


def push(
    path: Annotated[
        str, typer.Argument(metavar="TOKENIZER", help="A finished run, its best/, a tokenizer folder, or imtok-f8.")
    ],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the Hub; made if needed.")],
    license: Annotated[  # noqa: A002
        str, typer.Option("--license", metavar="NAME", help="Licence that the weights are given under, such as mit.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Let the repository be seen by its owners alone.")] = False,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="Branch of the commit; made if needed.")] = "main",
    data: Annotated[
        str, typer.Option(metavar="TEXT", help="The images it was trained on, in your words, for the card.")
    ] = "",
    evaluations: Annotated[
        list[Path] | None,
        typer.Option("--eval", metavar="EVAL", help="Folder of `imtok eval -o` for the card; it may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the card; ask the Hub nothing.")] = False,
) -> None:
    """Put a tokenizer on the Hugging Face Hub, with a model card written from its run.

    Configuration, weights and card become one commit. Others then load it as hf://ORG/NAME.
    """
    from imtok.publishing import push as publish

    report = publish(
        path,
        repository,
        license=license,
        private=private,
        revision=revision,
        data=data,
        evaluations=evaluations or (),
        dry_run=dry_run,
    )
    for note in report.notes:
        warn(note)
    if dry_run:
        print_result(report.card.rstrip())
        return
    say(f"{', '.join(report.files)} at {report.url}")
    print_result(report.address)
