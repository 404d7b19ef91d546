"""`imtok encode`."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from imtok.cli.console import parse_shard, print_result, progress_bar, say, stop_on_signals, warn
from imtok.cli.options import TOKENIZER_HELP, BatchSize, EncodeSources, MaxPixels, Precision, SalvageImages, shown
from imtok.counted import counted
from imtok.errors import SourceError, TokensError
from imtok.launcher import launcher_number

if TYPE_CHECKING:
    from imtok.data.address_lists import AddressList
    from imtok.data.reading import Rules
    from imtok.encoding import EncodeReport

_NOTES = 10  # printed


def encode(
    sources: EncodeSources,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="TOKENS", help="Folder for the tokens, also s3:// or gs://.")
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option("-t", "--tokenizer", help=f"{TOKENIZER_HELP} (default: imtok-f8, which comes with imtok)"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the square to encode; the tokenizer's training size by default.")
    ] = None,
    fit: Annotated[
        Literal["crop", "pad"] | None,
        typer.Option(
            help="crop: the central square. pad: the whole picture, its edges repeated; decode undoes it. "
            "(default: crop)"
        ),
    ] = None,
    labels: Annotated[
        Literal["auto", "folders", "cls", "json", "none"] | None,
        typer.Option(
            help="Where labels come from: class folders, .cls files or a Parquet column, or .json files. "
            "(default: auto, the first of .cls, .json and folders that is there)"
        ),
    ] = None,
    max_skip: Annotated[
        int | None, typer.Option(min=0, help="End with exit code 3 where more images than this were skipped.")
    ] = None,
    max_pixels: MaxPixels = None,
    salvage_images: SalvageImages = False,
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage", help="Take what can be read of a damaged tar or zip file; skip images that cannot be fetched."
        ),
    ] = False,
    on_duplicate: Annotated[
        Literal["fail", "suffix"],
        typer.Option(
            help="A key that occurs twice in a tar or zip file: fail that file, or add a suffix to the second key."
        ),
    ] = "fail",
    rules: Annotated[
        int | None,
        typer.Option(
            min=1, max=2, help="1 reads sources, labels and pixels as imtok did before format 2. (default: 2)"
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Encode several crops of each image: flip, ten-crop[=R] (LlamaGen), or random-crops=K (ml-4m). "
            "(default: none)"
        ),
    ] = None,
    augment_seed: Annotated[int | None, typer.Option(min=0, help="Seed of the random crops. (default: 0)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. (default: a GPU where there is one)")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="bf16 is faster and may change some tokens. (default: fp32)")
    ] = None,
    batch_size: BatchSize = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and, on a CPU, encode. (default: one for each core)")
    ] = None,
    unit_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images of a folder in one shard; a tar, zip or Parquet file is one shard. (default: 2048)"
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="This is process I of N, counted from 0: begin with every N-th unit, then help the others that have "
            "begun. Without it, processes of the same command share all units.",
        ),
    ] = "0/1",
    lease: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="On s3:// and gs://, take over units of a process that has been silent for this long. (default: 60)",
        ),
    ] = None,
) -> None:
    """Turn images into tokens.

    The same command resumes a stopped job, even one that was killed, and any number of processes may run it at one
    time: the tokens are the same bit for bit.
    """
    with stop_on_signals() as should_stop, progress_bar("encoding") as bar:
        import imtok.encoding
        from imtok.tokenizer import PRETRAINED
        from imtok.tokens.store import store_of

        if tokenizer is None and not store_of(output).exists():
            say(f"tokenizer: {PRETRAINED}, which comes with imtok; -t names another")
        report = imtok.encoding.encode(
            _with_standard_input(sources),
            output,
            tokenizer,
            size=size,
            fit=fit,
            device=device or _device(),
            precision=precision,
            batch_size=batch_size,
            workers=workers or _workers(),
            unit_size=unit_size,
            max_skip=max_skip,
            salvage=salvage,
            on_duplicate=on_duplicate,
            labels=labels,
            max_pixels=max_pixels,
            salvage_images=salvage_images or None,
            rules=cast("Rules | None", rules),
            augment=augment,
            augment_seed=augment_seed,
            shard=parse_shard(shard),
            rank=launcher_number("RANK", 0),
            world_size=launcher_number("WORLD_SIZE", 1),
            lease_seconds=lease,
            progress=lambda p: bar(p.done, p.total),
            should_stop=should_stop,
        )
    _print_report(report, shown(output))
    _note_idle(report, parse_shard(shard))


def _with_standard_input(sources: list[str]) -> list[str | AddressList]:
    """Put the list that comes through standard input in the place of `-`."""
    if "-" not in sources:
        return [*sources]
    if launcher_number("WORLD_SIZE", 1) > 1:
        raise SourceError("-: standard input reaches one process alone; write its lines into a file and give @FILE")
    import sys

    from imtok.data.address_lists import AddressList

    if sources.count("-") > 1:
        raise SourceError("-: standard input can be read once; give - once")
    if sys.stdin is None:
        raise SourceError("-: standard input is closed; send paths or URLs through it, or give @FILE")
    read = AddressList.of_stream(sys.stdin.buffer)
    return [read if source == "-" else source for source in sources]


def _device() -> str | None:
    """Under torchrun each rank has a GPU of its own."""
    import torch

    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{launcher_number('LOCAL_RANK', 0)}"


def _workers() -> int | None:
    """Under torchrun the ranks of a machine share its cores."""
    from imtok.cores import usable_cores

    ranks = launcher_number("LOCAL_WORLD_SIZE", 1)
    return max(1, usable_cores() // ranks) if ranks > 1 else None


def _note_idle(report: EncodeReport, shard: tuple[int, int]) -> None:
    """Say, in the first process alone, that there are fewer units than processes."""
    processes = shard[1] * launcher_number("WORLD_SIZE", 1)
    if shard[0] or launcher_number("RANK", 0) or report.units_total >= processes:
        return
    units = counted(report.units_total, "unit")
    warn(
        f"{units} for {processes} processes, so {processes - report.units_total} had nothing to do: a tar is one unit, "
        "and of a folder --unit-size images are one; smaller tars or units give all processes work"
    )


def _enlarged(report: EncodeReport, factor: float) -> str:
    """Say how many pictures were enlarged, and a size near theirs where the tokenizer can take it."""
    from imtok.data.pixels.enlarging import enlarging_note

    downsample = report.size // report.grid[1]
    smaller = round(report.size / factor / downsample) * downsample if report.grid[0] > 1 else 0
    whose = "its" if report.enlarged == 1 else "their"
    hint = f"; --size {smaller} is near {whose} own size" if 0 < smaller < report.size else ""
    return enlarging_note(report.enlarged, report.encoded, factor, report.size) + hint


def _print_report(report: EncodeReport, output: str) -> None:
    """Print the tokens on standard output; on standard error what was done, then what a person has to know."""
    _print_facts(report, output)
    _print_notes(report)
    sides = (*report.grid, report.num_codebooks)[: 2 if report.num_codebooks == 1 else 3]
    speed = f", {report.images_per_second:.0f} images/s" if report.units_done else ""
    tokens = counted(math.prod(sides), "token")
    crops = f"{report.num_crops} crops, " if report.num_crops > 1 else ""
    print_result(
        f"{counted(report.images, 'image', form=',')} in {output}: {crops}{'x'.join(map(str, sides))} = {tokens} each, "
        f"{report.bits_per_image:,.0f} bits{speed}"
    )
    for unit in report.failed:
        say(f"failed: {unit.name}: {unit.reason}")
    if report.failed:
        units = counted(report.units_total, "unit")
        raise TokensError(
            f"{output}: {len(report.failed)} of {units} failed, the others are committed; "
            "mend what is named above, or add the option it names, and run the same command again"
        )
    if not report.complete:
        say(f"{output}: not complete yet, units of other processes are missing; `imtok verify` names them")


def _print_facts(report: EncodeReport, output: str) -> None:
    """Print what was done, each line after the name of its subject."""
    if report.was_complete:
        say(f"{output}: already complete, nothing to do")
    if report.units_added:
        start, last = report.units_total - report.units_added, report.units_total - 1
        units = f"unit {start}" if start == last else f"units {start} to {last}"
        say(f"{output}: the inputs have grown; the new ones became {units}")
    if report.mean_cut is not None and report.mean_cut >= 0.005:
        say(f"crop: {report.mean_cut:.0%} of the pictures' area was cut away; --fit pad keeps all of it")
    if report.labels:
        say(f"labels: {report.labels}")
    for note in report.label_notes:
        say(f"{'labels' if report.labels else 'no labels'}: {note}")
    if report.ignored:
        say(f"ignored: {counted(report.ignored, 'file of another kind', 'files of other kinds')}")


def _print_notes(report: EncodeReport) -> None:
    """Print what a person has to know: what was ignored, skipped, salvaged or changed, each line after `note:`."""
    if report.mean_enlargement is not None:
        warn(_enlarged(report, report.mean_enlargement))
    if report.ignored_tars:
        containers = counted(
            report.ignored_tars, "container beside the images was", "containers beside the images were"
        )
        warn(f"{containers} ignored; name each that is to be encoded as a source")
    for note in report.notes[:_NOTES]:
        warn(note)
    if (more_notes := len(report.notes) - _NOTES) > 0:
        warn(f"{counted(more_notes, 'more note')} of this kind about other sources")
    for reason, skips in report.skips.items():
        more = ", ..." if skips.count > len(skips.examples) else ""
        warn(f"skipped {skips.count}: {reason} ({', '.join(skips.examples)}{more})")
    for name in report.empty:
        warn(f"{name}: holds no images, so its shard is empty")
    for damage in report.salvaged:
        warn(f"salvaged: {damage}")
    if report.salvaged_images:
        count, first = len(report.salvaged_images), report.salvaged_images[0]
        warn(f"salvaged: {count} truncated {'picture' if count == 1 else 'pictures'}, first {first}")
    if report.renamed:
        warn(f"{counted(report.renamed, 'key')} that occurred before in the same tar got a suffix")
