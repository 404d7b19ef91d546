"""`imtok demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import out, progress_bar, say, stop_on_signals, tell, warn

if TYPE_CHECKING:
    from imtok.demo import DemoReport
    from imtok.training import TrainProgress


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for all that the demo makes.")] = Path("demo"),
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images; the preset's minute and a half by default.")
    ] = None,
) -> None:
    """Train a small tokenizer on photographs that are already here, encode, decode, and report: about two minutes."""
    import imtok.demo

    say(f"training a small tokenizer on {imtok.demo.TRAINED_ON} photographs of scikit-image (some minutes)")
    with progress_bar("training") as bar, stop_on_signals() as should_stop:

        def update(progress: TrainProgress) -> None:
            bar(progress.seen, progress.images)
            if progress.validation is not None:
                say(f"{progress.seen} of {progress.images}: held-out PSNR {progress.validation.psnr:.2f} dB")
            for note in progress.notes:
                warn(note)

        report = imtok.demo.run_demo(output, images=images, progress=update, should_stop=should_stop)
    _print(report, output)


def _print(report: DemoReport, output: Path) -> None:
    from rich.table import Table

    table = Table(title="photographs", title_justify="left", box=None)
    table.add_column("")
    table.add_column("PSNR", justify="right")
    table.add_column("SSIM", justify="right")
    for name, quality in (("seen in training", report.seen), ("not seen in training", report.unseen)):
        table.add_row(f"{quality.images} {name}", f"{quality.psnr:.2f} dB", f"{quality.ssim:.3f}")
    console = out()
    console.print(table)
    size = report.seen.size
    usage = report.usage
    console.print()
    tell(
        f"{size}x{size} pixels in {report.seen.bits_per_image:,.0f} bits ({report.tokens_per_image} tokens; raw RGB: "
        f"{size * size * 24:,}), {usage.used:,} of {usage.codebook_size:,} codes used by {usage.images} photographs",
    )
    tell(f"side by side: {output / 'comparison.png'}   (took {report.seconds:.0f} s)")
    console.print()
    tell("next, on your own folder:")
    for command in (
        "imtok train photos/ -o runs/first",
        "imtok encode photos/ -t runs/first -o tokens",
        "imtok stats tokens",
    ):
        tell(f"    {command}")
