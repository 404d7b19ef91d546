"""`imtok decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imtok.cli.console import print_result, progress_bar, stop_on_signals, warn
from imtok.cli.options import BatchSize, Device, Partial, Precision, Tokens


def decode(
    tokens: Tokens,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="IMAGES", help="Folder for the images, or a .tar to write.")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option("-t", "--tokenizer", help="Another tokenizer with the same codes; the folder's own by default."),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpg", "webp"], typer.Option("--format", help="Format of the image files.")
    ] = "png",
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16 is faster.")] = "fp32",
    batch_size: BatchSize = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. (default: one a core)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    partial: Partial = False,
) -> None:
    """Turn tokens back into images, each under its key: `a/x.jpg` becomes `a/x.jpg.png`."""
    with stop_on_signals() as should_stop, progress_bar("decoding") as bar:
        import imtok.decoding

        report = imtok.decoding.decode(
            tokens,
            output,
            tokenizer_path=tokenizer,
            format=image_format,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            partial=partial,
            progress=lambda p: bar(p.done, p.total),
            should_stop=should_stop,
        )
    speed = f"{report.seconds:.1f} s, {report.images_per_second:.0f} images/s"
    print_result(f"{report.images} images in {output} ({speed})")
    if report.skipped:
        warn(f"{report.skipped} images were skipped when the tokens were made; `imtok info {tokens}` says more")
