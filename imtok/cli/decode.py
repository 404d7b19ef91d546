"""`imtok decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imtok.cli.console import print_result, progress_bar, stop_on_signals, warn
from imtok.cli.options import BatchSize, Device, Partial, Precision, Tokens, shown
from imtok.counted import counted


def decode(
    tokens: Tokens,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="IMAGES", help="Folder for the images, or a .tar to write.")
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--tokenizer",
            help="Another tokenizer with the same codes, also as hf://ORG/NAME. (default: the folder's own)",
        ),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpg", "webp"], typer.Option("--format", help="Format of the image files.")
    ] = "png",
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16 is faster.")] = "fp32",
    batch_size: BatchSize = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. (default: one for each core)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many images, the first ones.")] = None,
    crop: Annotated[
        int, typer.Option(min=0, help="Which crop of each image, where tokens were made with --augment.")
    ] = 0,
    partial: Partial = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that holds other files, or over other decoded images."),
    ] = False,
) -> None:
    """Turn tokens back into images, each under its key: `a/x.jpg` becomes `a/x.jpg.png`.

    The same command resumes a stopped decode, and leaves a finished one as it is.
    """
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
            crop=crop,
            partial=partial,
            overwrite=overwrite,
            progress=lambda p: bar(p.done, p.total),
            should_stop=should_stop,
        )
    if report.before == report.images > 0:
        print_result(f"nothing to do: {counted(report.images, 'image')} in {output} already")
    else:
        speed = f"{report.seconds:.1f} s, {report.images_per_second:.0f} images/s"
        before = f", {report.before} of them by an earlier call" if report.before else ""
        print_result(f"{counted(report.images, 'image')} in {output}{before} ({speed})")
    if report.skipped:
        skipped = counted(report.skipped, "image was", "images were")
        warn(f"{skipped} skipped when the tokens were made; `imtok info {shown(tokens)}` says more")
