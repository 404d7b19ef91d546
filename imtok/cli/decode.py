"""`imtok decode`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import print_result, progress_bar, stop_on_signals, warn
from imtok.cli.encode import Precision


class Format(StrEnum):
    """File formats that `decode` writes."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"


def decode(
    tokens: Annotated[Path, typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="IMAGES", help="Folder for the images, or a .tar to write.")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option("-t", "--tokenizer", help="Another tokenizer with the same codes; the folder's own by default."),
    ] = None,
    image_format: Annotated[Format, typer.Option("--format", help="Format of the image files.")] = Format.PNG,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU where there is one.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16 is faster.")] = Precision.FP32,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a batch. (default: 16, on a GPU 64)")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. (default: one a core)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a token folder with units missing.")] = False,
) -> None:
    """Turn tokens back into images, each under its key: `a/x.jpg` becomes `a/x.jpg.png`."""
    with stop_on_signals() as should_stop, progress_bar("decoding") as bar:
        import imtok.decoding

        report = imtok.decoding.decode(
            tokens,
            output,
            tokenizer_path=tokenizer,
            format=image_format.value,
            device=device,
            precision=precision.value,
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            partial=partial,
            progress=lambda p: bar(p.done, p.total),
            should_stop=should_stop,
        )
    print_result(
        f"{report.images} images in {output} ({report.seconds:.1f} s, {report.images_per_second:.0f} images/s)",
    )
    if report.skipped:
        warn(f"{report.skipped} images were skipped when the tokens were made; `imtok info {tokens}` says more")
