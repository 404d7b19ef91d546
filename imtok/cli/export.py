"""`imtok export`."""

from __future__ import annotations

from functools import partial as with_preset
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from imtok.cli.console import print_result, progress_bar, say, stop_on_signals, warn
from imtok.cli.options import Partial, shown
from imtok.counted import counted
from imtok.signals import NOTHING_SAVED, say_when_stopped

if TYPE_CHECKING:
    from imtok.export.job import ExportReport as TokensReport
    from imtok.interop.exporting.job import ExportReport as TokenizerReport

TokenizerFormat = Literal["torch-export", "onnx", "diffusers"]
TokensFormat = Literal[
    "megatron",
    "nanogpt",
    "llmc",
    "automodel",
    "torchtitan",
    "datatrove",
    "olmo",
    "litdata",
    "mds",
    "parquet",
    "webdataset",
    "npy",
    "llamagen",
    "rar-jsonl",
    "4m",
    "emu3",
]

_option = with_preset(typer.Option, rich_help_panel="Tokens")


def export(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A token folder, also as s3://BUCKET/FOLDER; or a tokenizer: a folder, a run, or a name.",
        ),
    ],
    to: Annotated[
        Literal[TokenizerFormat, TokensFormat],
        typer.Option(
            "--to",
            help="Layout of a trainer, which takes a token folder. torch-export, onnx (encoder and decoder as graphs "
            "that need no imtok) and diffusers (a VQModel, where the network is one) take a tokenizer.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder to make.")],
    offset: Annotated[int | None, _option(min=0, help="Add this to every code.")] = None,
    boi: Annotated[int | None, _option(min=0, help="Id before the codes of an image.")] = None,
    eoi: Annotated[int | None, _option(min=0, help="Id after the codes of an image.")] = None,
    eol: Annotated[int | None, _option(min=0, help="Id after each row of codes.")] = None,
    eod: Annotated[int | None, _option(min=0, help="Id after each image, the end of a document.")] = None,
    order: Annotated[
        Literal["interleaved", "concatenated"] | None,
        _option(help="Codes of several codebooks side by side (default), or one codebook after the other."),
    ] = None,
    codebook_offsets: Annotated[
        bool, _option("--codebook-offsets", help="Give each codebook ids of its own, after those of the one before.")
    ] = False,
    label: Annotated[
        Literal["before", "after", "none"] | None,
        _option(help="Put a class id before or after each image's ids. (default: none)"),
    ] = None,
    label_offset: Annotated[
        int | None, _option(min=0, help="Id of class 0. (default: the first above those of the codes)")
    ] = None,
    val_fraction: Annotated[
        float | None, _option(min=0, max=0.999999, help="Share of images held out, by a hash of their keys.")
    ] = None,
    shuffle: Annotated[
        int | None, _option(metavar="SEED", help="Shuffle the images of each split once. (default: input order)")
    ] = None,
    shard_size: Annotated[
        int | None, _option(min=1, help="Images in a file, where the format has several files.")
    ] = None,
    dtype: Annotated[
        Literal["uint8", "uint16", "uint32", "int16", "int32", "int64"] | None,
        _option(help="Type of the ids. (default: the narrowest of the format that holds them)"),
    ] = None,
    partial: Partial = False,
) -> None:
    """Write tokens in the layout of a trainer, or a tokenizer as files that other programs run.

    The same command resumes a stopped export of tokens and leaves a finished one as it is. `imtok-export.json` records
    what made the files, and `imtok verify OUT --against TOKENS` reads them back. The files of a tokenizer are run and
    compared with it before they appear, and `imtok.json` beside them says what they take and give.
    """
    options: dict[str, Any] = {
        "offset": offset,
        "boi": boi,
        "eoi": eoi,
        "eol": eol,
        "eod": eod,
        "order": order,
        "label": label,
        "codebook_offsets": codebook_offsets or None,
        "label_offset": label_offset,
        "val_fraction": val_fraction,
        "shuffle": shuffle,
        "shard_size": shard_size,
        "dtype": dtype,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if to in get_args(TokenizerFormat):
        if names := [*given, *(["partial"] if partial else [])]:
            raise typer.BadParameter(f"for tokens, and {to} takes a tokenizer", param_hint=_name(names[0]))
        _export_tokenizer(path, output, to)
    else:
        _export_tokens(path, output, to, given, partial)


def _export_tokens(path: str, output: Path, to: str, given: dict[str, Any], partial: bool) -> None:
    with stop_on_signals() as should_stop, progress_bar("exporting") as bar:
        from imtok.export import ExportOptions, export_tokens

        options = ExportOptions.model_validate(given)
        report = export_tokens(path, output, to, options, partial=partial, progress=bar, should_stop=should_stop)
    _print_tokens(report)
    if report.plan.options.val_fraction and "val" not in report.plan.images:
        warn(f"--val-fraction {options.val_fraction} holds out none of {counted(report.plan.total, 'image', form=',')}")
    say(f"check: imtok verify {output} --against {shown(path)}")


def _print_tokens(report: TokensReport) -> None:
    record = report.record
    ids = record.ids_per_image * record.crops
    splits = f" ({', '.join(f'{split} {count:,}' for split, count in record.images.items())})"
    images = counted(sum(record.images.values()), "image", form=",")
    size = _size(sum(file.bytes for file in record.files))
    print_result(
        f"{'nothing to do: ' if report.existed else ''}{images}{splits if len(record.images) > 1 else ''} of "
        f"{counted(ids, 'id', form=',')} as {record.dtype} in {report.folder}, "
        f"{counted(record.num_files, 'file', form=',')} ({size})"
    )
    if not report.existed:
        print_result(f"{report.seconds:.1f} s, {report.ids_per_second:,.0f} tokens/s")
    print_result(f"vocabulary: {record.num_ids:,} ids; {', '.join(_meanings(report))}")
    print_result(f"{record.to}: {report.trainer_note}")


def _meanings(report: TokensReport) -> list[str]:
    """Say what the ids of an export stand for."""
    record = report.record
    texts = [f"codes {record.code_ids[0]} to {record.code_ids[1] - 1}"]
    if record.label_ids is not None:
        texts.append(f"classes {record.label_ids[0]} to {record.label_ids[1] - 1}")
    values = ((name, getattr(record.options, name)) for name in ("boi", "eoi", "eol", "eod"))
    return texts + [f"{name} {value}" for name, value in values if value is not None]


def _export_tokenizer(path: str, output: Path, to: str) -> None:
    import imtok.interop.exporting.job

    say_when_stopped(NOTHING_SAVED)
    _print_tokenizer(imtok.interop.exporting.job.export_tokenizer(path, output, to, progress=say))


def _print_tokenizer(report: TokenizerReport) -> None:
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


def _name(option: str) -> str:
    return f"--{option.replace('_', '-')}"
