"""`imtok eval`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import facts_table, one_voice, out, print_result, progress_bar, warn
from imtok.cli.options import (
    TOKENIZER_HELP,
    AnySources,
    AsJson,
    BatchSize,
    Device,
    MaxPixels,
    Precision,
    SalvageImages,
    Stream,
)
from imtok.counted import counted
from imtok.signals import GOES_ON, say_when_stopped

if TYPE_CHECKING:
    from imtok.evaluation import Result


def evaluate(
    tokenizer: Annotated[str, typer.Argument(metavar="TOKENIZER", help=TOKENIZER_HELP)],
    sources: AnySources,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="TOKENIZER", help="Another tokenizer, or saved results of one, in one table."),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="imtok, adm, taming, titok, var, or all of them; may be repeated. (default: imtok)"
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="With commas between: psnr, ssim, ms_ssim, lpips, lpips_alex, rfid, rfid_clean, rfid_pytorch, "
            "precision, recall, or all. (default: psnr,ssim)",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="File of vgg16, alexnet or inception, which are fetched once otherwise; may be repeated.",
        ),
    ] = None,
    codecs: Annotated[
        bool, typer.Option("--codecs", help="WebP, JPEG and AVIF at the bytes of TOKENIZER's codes, in the same table.")
    ] = False,
    images_out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the worst, middle and best images, with their differences."),
    ] = None,
    save_samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="All reconstructions, as guided-diffusion's evaluator reads them."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="EVAL", help="Folder for what is measured; the same command resumes from it."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the square compared; the tokenizer's training size by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images: evenly spaced, of a stream the first.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        Precision | None, typer.Option(help="Precision in which the networks compute. (default: fp32)")
    ] = None,
    batch_size: BatchSize = None,
    unit_size: Annotated[
        int | None, typer.Option(min=1, help="Images that -o saves together; a shard of a stream is one unit.")
    ] = None,
    ranks: Annotated[
        int,
        typer.Option(min=1, help="Processes that the protocol stands for: adm repeats images until all have as many."),
    ] = 1,
    max_pixels: MaxPixels = None,
    salvage_images: SalvageImages = False,
    stream: Stream = False,
    max_shard_failures: Annotated[
        int, typer.Option(min=0, help="Shards of a stream that may fail; they are named and left out.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what a tokenizer keeps of images: PSNR, SSIM, usage, bits per image, by a protocol that it prints.

    torchrun starts several processes that share the images; they need -o. Metrics of different protocols, sizes or
    images never stand in one table of tokenizers; one tokenizer under several protocols is a table of its own.
    """
    if output is not None:
        say_when_stopped(GOES_ON)
    with one_voice() as processes, progress_bar("measuring") as bar:
        import imtok.evaluation
        from imtok.data.reading import MAX_PIXELS, Reading
        from imtok.evaluation import parse_weights
        from imtok.evaluation.protocols import PROTOCOLS
        from imtok.evaluation.result import beside_each_other, is_saved

        saved = [path for path in beside or () if is_saved(path)]
        loaded = [result for path in saved for result in imtok.evaluation.read_results(path)]
        reading = Reading(max_pixels=max_pixels or MAX_PIXELS, salvage_images=salvage_images)
        measured = imtok.evaluation.evaluate_tokenizers(
            [tokenizer, *(path for path in beside or () if path not in saved)],
            sources,
            protocols=list(PROTOCOLS) if protocol and "all" in protocol else protocol or (),
            metrics=[*filter(None, metrics.split(","))] if metrics else None,
            weights=parse_weights(weights or []),
            codecs=codecs,
            images_out=images_out,
            samples=save_samples,
            output=output,
            size=size,
            device=device,
            precision=precision,
            batch_size=batch_size,
            unit_size=unit_size,
            limit=limit,
            reading=reading if max_pixels or salvage_images else None,
            stream=stream,
            ranks=ranks,
            max_shard_failures=max_shard_failures,
            progress=bar if processes.first else None,
        )
        results = beside_each_other(measured, loaded)
        tables = imtok.evaluation.tables(results)
    if processes.first:
        _print(results, tables, as_json=as_json, times=output is not None)


def _print(results: Sequence[Result], tables: Sequence[Sequence[Result]], *, as_json: bool, times: bool) -> None:
    """Print the results on standard output, and notes about the images on standard error."""
    from imtok.config.origin import gray_images_note
    from imtok.evaluation.codecs import missing_codecs

    _warn(results[0])
    if as_json:
        content = [result.as_dict(times=times) for result in results]
        typer.echo(json.dumps(content[0] if len(content) == 1 else {"results": content}))
        return
    for number, table in enumerate(tables):
        if number:
            print_result("")
        _print_table(table)
    for result in results:
        if result.origin is not None and result.origin.no_decoder:
            warn(gray_images_note(result.tokenizer))
    reasons = {name: reason for result in results for name, reason in result.refused.items()}
    for reason in dict.fromkeys(reasons.values()):
        warn(reason)
    for label in missing_codecs() if any(not result.usage for result in results) else ():
        warn(f"{label} is left out, since Pillow was built without it")
    for result in results:
        if result.larger:
            images = counted(result.larger, "image needs", "images need")
            warn(f"{result.tokenizer}: {images} more bytes than the codes even in the lowest quality")
    if results[0].skipped:
        warn(f"skipped {counted(results[0].skipped, 'image')} that cannot be read")


def _print_table(results: Sequence[Result]) -> None:
    """Print one result as a list, several below each other, and the protocol or protocols."""
    if len(results) == 1:
        out().print(facts_table(_facts(results[0])))
    else:
        from imtok.cli.evaluate_table import print_tables

        print_tables(out(), results, by_protocol=len({result.protocol_name for result in results}) > 1)
    for name, line in dict.fromkeys((result.protocol_name, result.protocol) for result in results):
        print_result(f"protocol: {line}" if line.startswith(f"{name}: ") else f"protocol: {name}: {line}")


def _warn(result: Result) -> None:
    from imtok.data.pixels.enlarging import enlarging_note

    if result.mean_enlargement is not None:
        warn(enlarging_note(result.enlarged, result.images, result.mean_enlargement, result.size))
    for name, reason in result.failed_shards.items():
        warn(f"{name}: {reason}; this shard is left out")


def _facts(result: Result) -> dict[str, str]:
    usage, coded = result.usage, result.coded_bits_per_image
    metrics = _metric_facts(result)  # none where all refuse the images
    exact = f", {counted(result.exact, 'image')} exact" if result.exact else ""
    entropy_coded = f", {coded:,.0f} entropy-coded" if coded is not None else ""
    rates = [("encoded", result.encode_images_per_second), ("decoded", result.decode_images_per_second)]
    speed = ", ".join(f"{rate:,.1f} {name}" for name, rate in rates if rate is not None)
    return {
        "images": f"{result.images:,}",
        **{label: text + exact * (number == 0) for number, (label, text) in enumerate(metrics)},
        "bits per image": f"{result.bits_per_image:,.0f} ({result.bits_per_pixel:.3f} a pixel){entropy_coded}",
        "codes used": f"{usage['used']:,} of {usage['codebook_size']:,} ({usage['usage']:.1%})",
        "perplexity": f"{usage['perplexity']:,.1f}",
        **({"images a second": speed} if speed else {}),
    }


def _metric_facts(result: Result) -> list[tuple[str, str]]:
    """Name each metric and format its value, with half the width of its interval."""
    from imtok.cli.evaluate_table import half_width
    from imtok.evaluation import METRICS

    known = [(METRICS[name], value, result.intervals.get(name)) for name, value in result.metrics.items()]
    return [
        (metric.label, f"{metric.format(value)} {half_width(metric.digits, interval)}".rstrip())
        for metric, value, interval in known
    ]
