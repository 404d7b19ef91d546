"""`imtok demo`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import out, print_result, progress_bar, say, stop_on_signals, warn

if TYPE_CHECKING:
    from imtok.demo import DemoReport
    from imtok.training import TrainProgress


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for all that the demo makes.")] = Path("demo"),
    images: Annotated[int | None, typer.Option(min=1, help="Training images; the preset's 40,000 by default.")] = None,
) -> None:
    """Train a small tokenizer on photographs that are already here, encode, decode, and report.

    It takes two to eight minutes on two CPU cores.
    """
    import imtok.demo
    from imtok.evaluation import METRICS

    say(
        f"training a small tokenizer on {imtok.demo.TRAINED_ON} pictures of scikit-image, in two to eight minutes on "
        "two CPU cores"
    )
    with progress_bar("training") as bar, stop_on_signals() as should_stop:

        def update(progress: TrainProgress) -> None:
            bar(progress.seen, progress.images)
            if progress.validation is not None:
                name, value = next(iter(progress.validation.metrics.items()))
                quality = f"{METRICS[name].label} {METRICS[name].format(value)}"
                say(f"{progress.seen} of {progress.images}: held-out {quality}")
            for note in progress.notes:
                warn(note)

        report = imtok.demo.run_demo(output, images=images, progress=update, should_stop=should_stop)
    _print(report, output)


def _print(report: DemoReport, output: Path) -> None:
    from rich.table import Table

    from imtok.evaluation import METRICS

    table = Table(title="pictures", title_justify="left", box=None)
    table.add_column("")
    for name in report.seen.metrics:
        table.add_column(METRICS[name].label, justify="right")
    for which, quality in (("seen in training", report.seen), ("not seen in training", report.unseen)):
        values = [METRICS[name].format_briefly(value) for name, value in quality.metrics.items()]
        table.add_row(f"{quality.images} {which}", *values)
    console, size, usage = out(), report.seen.size, report.usage
    console.print(table, "", sep="\n")
    if report.seen.psnr < report.unseen.psnr:
        print_result(
            "The pictures seen in training score lower, as they have finer detail: stars, tissue, spokes. PSNR "
            "compares tokenizers on the same pictures, not different pictures."
        )
    print_result(
        f"{size}x{size} pixels in {report.seen.bits_per_image:,.0f} bits ({report.tokens_per_image} tokens; raw RGB: "
        f"{size * size * 24:,}), {usage.used:,} of {usage.codebook_size:,} codes used by {usage.images} pictures"
    )
    print_result(f"side by side: {output / 'comparison.png'}   (took {report.seconds:.0f} s)")
    console.print()
    program = _program()
    print_result("next, on your own folder, with the tokenizer that comes with imtok:")
    for command in ("encode photos/ -o tokens", "stats tokens"):
        print_result(f"    {program} {command}")
    print_result("or with one of your own:")
    for command in ("train photos/ -o runs/first", "encode photos/ -t runs/first -o own-tokens"):
        print_result(f"    {program} {command}")


def _program() -> str:
    """Return the command that runs this imtok from here, whether or not its environment is active."""
    installed = Path(sys.executable).with_name("imtok")
    found = shutil.which("imtok")
    if found is not None and Path(found).absolute() == installed.absolute():
        return "imtok"
    if not installed.exists():
        return shlex.join([sys.executable, "-m", "imtok"])
    here = Path.cwd()
    return shlex.quote(str(installed.relative_to(here) if installed.is_relative_to(here) else installed))
