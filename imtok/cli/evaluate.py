"""`imtok eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from imtok.cli.console import facts_table, out, print_result, progress_bar, warn
from imtok.cli.options import AnySources, AsJson, Device, MaxPixels, Precision, SalvageImages, Stream
from imtok.counted import counted


def evaluate(
    tokenizer: Annotated[Path, typer.Argument(metavar="TOKENIZER", help="Tokenizer folder, run, or imtok-f8.")],
    sources: AnySources,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the square compared; the tokenizer's training size by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images: evenly spaced, of a stream the first.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[Precision, typer.Option(help="Precision in which the networks compute.")] = "fp32",
    max_pixels: MaxPixels = None,
    salvage_images: SalvageImages = False,
    stream: Stream = False,
    max_shard_failures: Annotated[
        int, typer.Option(min=0, help="Shards of a stream that may fail; they are named and left out.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what a tokenizer keeps of images: PSNR, SSIM, usage, bits per image, by a protocol that it prints."""
    import imtok.evaluation
    from imtok.data.pixels.enlarging import enlarging_note
    from imtok.data.reading import MAX_PIXELS, Reading

    reading = Reading(max_pixels=max_pixels or MAX_PIXELS, salvage_images=salvage_images)
    with progress_bar("measuring") as bar:
        quality = imtok.evaluation.evaluate(
            tokenizer,
            sources,
            size=size,
            device=device,
            precision=precision,
            limit=limit,
            reading=reading,
            stream=stream,
            max_shard_failures=max_shard_failures,
            progress=bar,
        )
    if quality.mean_enlargement is not None:
        warn(enlarging_note(quality.enlarged, quality.images, quality.mean_enlargement, quality.size))
    for name, reason in quality.failed_shards.items():
        warn(f"{name}: {reason}; this shard is left out")
    if as_json:
        typer.echo(json.dumps(quality.as_dict()))
        return
    usage = quality.usage
    metrics = [(imtok.evaluation.METRICS[name], value) for name, value in quality.metrics.items()]
    first, *others = [(metric.label, metric.format(value)) for metric, value in metrics]
    facts = {
        "images": f"{quality.images:,}",
        first[0]: first[1] + (f", {counted(quality.exact, 'image')} exact" if quality.exact else ""),
        **dict(others),
        "bits per image": f"{quality.bits_per_image:,.0f} ({quality.bits_per_image / quality.size**2:.3f} a pixel)",
        "codes used": f"{usage.used:,} of {usage.codebook_size:,} ({usage.usage:.1%})",
        "perplexity": f"{usage.perplexity:,.1f}",
    }
    out().print(facts_table(facts))
    print_result(f"protocol: {quality.protocol}")
    if quality.skipped:
        warn(f"skipped {counted(quality.skipped, 'image')} that cannot be read")
