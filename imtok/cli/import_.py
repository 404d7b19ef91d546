"""`imtok import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import print_result, progress_bar, say, warn

if TYPE_CHECKING:
    from imtok.interop import ImportReport


def import_(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A published file of weights, the folder that holds it, or an address of the Hub such as hf://ORG/NAME/FILE.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="TOKENIZER", help="Folder for the tokenizer; made if needed.")
    ],
    config: Annotated[
        Path | None, typer.Option(help="Its configuration, YAML or JSON. (default: looked for beside it)")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Family it belongs to, such as taming or llamagen. (default: recognised by its keys)"),
    ] = None,
    license: Annotated[  # noqa: A002
        str, typer.Option("--license", help="Licence that the weights are under, recorded with the tokenizer.")
    ] = "",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Take the moving average of the weights where the file has one.")
    ] = True,
) -> None:
    """Make a tokenizer of a published checkpoint: VQGAN, LlamaGen, Open-MAGVIT2 and other families.

    Nothing that the file holds is run. The same command again on a finished output changes nothing.
    """
    from imtok.interop import import_checkpoint

    with progress_bar("hashing", "MiB") as bar:
        report = import_checkpoint(
            checkpoint, output, config=config, family=family, license=license, ema=ema, progress=bar
        )
    _print(report)


def _print(report: ImportReport) -> None:
    for sentence in report.assumed:
        warn(sentence)
    if report.left_out:
        counts = ", ".join(f"{name} ({count:,})" for name, count in report.left_out.items())
        say(f"left out, as no tokenizer needs it: {counts}")
    if report.averaged:
        say("the weights are the moving average in the file; --no-ema takes those it is the average of")
    config = report.tokenizer.config
    settings = report.settings_path.name if report.settings_path else "its tensors, as there is no configuration"
    print_result(f"{report.output}: {report.label}, by {settings}{'; it was there already' if report.existed else ''}")
    down = report.tokenizer.downsample
    codes = f"downsampling {down}" if down else f"a sequence of {config.network.grid(config.size, config.size)[1]}"
    print_result(f"{config.quantizer.summary}, {codes}; fingerprint {report.tokenizer.fingerprint[:12]}")
