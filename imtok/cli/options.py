"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imtok.data.addresses import is_remote, redacted

Precision = Literal["fp32", "bf16"]

Tokens = Annotated[
    str, typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`, also as s3://BUCKET/FOLDER.")
]
EncodeSources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Folders of images, and .tar, .zip or .parquet files, here or as URLs of https, s3, gs or hf; @FILE or a "
        ".txt file with a path or URL on each line, - for such lines on standard input. Braces stand for many: "
        "s3://bucket/train-{0000..1023}.tar.",
    ),
]
AnySources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Folders of images, and .tar, .zip or .parquet files; tars also as URLs of https, s3, gs or hf, which are "
        "streamed. Braces stand for many: s3://bucket/train-{0000..1023}.tar.",
    ),
]
TOKENIZER_HELP = "Tokenizer folder, finished run of `imtok train`, name such as imtok-f8, or hf://ORG/NAME[@REVISION]."
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto chooses a GPU where there is one.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images in a batch. (default: 16, on a GPU 64)")]
Partial = Annotated[bool, typer.Option("--partial", help="Accept a token folder with units missing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Skip images of more pixels than this. (default: 178956970)")
]
Stream = Annotated[
    bool, typer.Option("--stream", help="Read tars of this machine in order too, as those of URLs, without an index.")
]
SalvageImages = Annotated[bool, typer.Option("--salvage-images", help="Take what can be read of a truncated image.")]


def shown(folder: str) -> str:
    """Return the name of a token folder as it may be printed: a path, or an address without secrets."""
    return redacted(folder) if is_remote(folder) else str(Path(folder))
