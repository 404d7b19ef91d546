"""`imtok export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imtok.cli.console import print_result, say

if TYPE_CHECKING:
    from imtok.interop.exporting.job import ExportReport

TokenizerFormat = Literal["torch-export", "onnx", "diffusers"]


def export(
    tokenizer: Annotated[
        str, typer.Argument(metavar="TOKENIZER", help="A tokenizer folder, a run, or the name of one that is built in.")
    ],
    to: Annotated[
        TokenizerFormat,
        typer.Option(
            "--to",
            help="torch-export and onnx hold encoder and decoder as graphs that need no imtok; diffusers is a VQModel, "
            "where the network is one.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder to make.")],
) -> None:
    """Write a tokenizer as files that other programs run, after they have given the tokenizer's own codes.

    `imtok.json` beside the files says what they take and give, and which tokenizer they are.
    """
    import imtok.interop.exporting.job

    report = imtok.interop.exporting.job.export_tokenizer(tokenizer, output, to, progress=say)
    _print(report)


def _print(report: ExportReport) -> None:
    files = ", ".join(f"{name} ({_size(size)})" for name, size in report.sizes.items())
    print_result(f"{'nothing to do: ' if report.existed else ''}{files} in {report.folder}")
    layout, check = report.layout, report.check
    least = f", h and w from {layout.least_grid}" if layout.free_size else ""
    print_result(
        f"images float32 ({_axes(layout.images)}) in [-1, 1]; codes int64 ({_axes(layout.codes)}) in "
        f"[0, {report.num_codes}){least}"
    )
    images = f"differ by {check.image_difference:.1e} at most" if check.image_difference else "are equal to the bit"
    print_result(
        f"{check.codes - check.different_codes:,} of {check.codes:,} codes are imtok's under {check.runtime}; "
        f"images {images}"
    )
    if report.license:
        print_result(f"licence: {report.license}")


def _axes(shape: tuple[int | str, ...]) -> str:
    return ", ".join(str(axis).removeprefix("1*") for axis in shape)


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} KB"
