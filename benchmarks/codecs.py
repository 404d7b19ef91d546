"""A tokenizer beside JPEG, WebP and AVIF at the same number of bytes, on photographs it was not trained on.

Every photograph is brought to shorter side S by Pillow's bicubic filter and cropped to its central S x S. The tokenizer
has (S / f)^2 log2 K / 8 bytes for it, no entropy coding counted; each codec is given, photograph by photograph, the
highest quality whose whole file is no larger. The metrics are those of `imtok eval`. Where even the lowest quality is
too large, that file is taken all the same and counted as `over`, which favours the codec.

    python benchmarks/codecs.py ../shared/data/photos --held-out 0.08 --picture comparison.png
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import machine
from torch import Tensor

import imtok
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.evaluation import METRICS, build_metrics
from imtok.evaluation.codecs import available_codecs, larger
from imtok.tokenizer import to_uint8
from imtok.training.preview import pair_grid


@dataclass(frozen=True)
class Kept:
    """Metrics and size of the photographs in one format."""

    metrics: dict[str, float]
    size: float  # bytes an image, mean
    over: int  # images that took more than allowed


def main() -> None:
    args = parse()
    tokenizer = imtok.load(args.tokenizer)
    images = ImageCollection.open([args.source])
    if args.held_out:
        images = images.split(args.held_out)[1]
    size = args.size or tokenizer.config.size
    originals = torch.stack([fit_image(decode_image(data), size).pixels for _, data in images])  # (B, 3, S, S)
    codes = torch.cat([tokenizer.encode(part) for part in originals.split(8)])
    restored = torch.cat([to_uint8(tokenizer.decode(part)) for part in codes.split(8)])
    allowed = codes[0].numel() * math.log2(tokenizer.num_codes) / 8
    kept = {"tokens": measured(restored, originals, [allowed] * len(originals), allowed)}
    for codec in available_codecs():
        coded = codec.restore(originals, allowed)
        kept[codec.label] = measured(coded.restored, originals, coded.sizes.tolist(), allowed)
    report(kept, len(originals), size, allowed)
    if args.picture:
        chosen = range(0, len(originals), math.ceil(len(originals) / args.columns))
        grid = pair_grid(originals[list(chosen)], restored[list(chosen)])
        grid.save(args.picture, quality=95)
    settings = {"tokenizer": tokenizer.fingerprint, "size": size, "held_out": args.held_out, "images": len(originals)}
    figures = {name: {**each.metrics, "size": each.size, "over": each.over} for name, each in kept.items()}
    print(
        json.dumps({"figures": figures, "allowed_bytes": allowed, **settings, **machine(torch.device("cpu"), "pillow")})
    )


def measured(restored: Tensor, originals: Tensor, sizes: list[float] | list[int], allowed: float) -> Kept:
    """Measure one format: two (B, 3, S, S) uint8 and the bytes of each image."""
    metrics = build_metrics()
    for metric in metrics:
        metric.update(restored, originals)
    return Kept(
        {each.name: each.compute() for each in metrics}, size=statistics.mean(sizes), over=larger(sizes, allowed)
    )


def report(kept: dict[str, Kept], images: int, size: int, allowed: float) -> None:
    print(f"{images} photographs, {size} x {size} px, at most {allowed:.0f} bytes each\n")
    shown = [METRICS[name] for name in kept["tokens"].metrics]
    names = ["", *(metric.label for metric in shown), "bytes", "over"]
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    for name, each in kept.items():
        values = [metric.format_briefly(each.metrics[metric.name]) for metric in shown]
        print(f"| {' | '.join([name, *values, f'{each.size:.0f}', str(each.over)])} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder or tar of photographs")
    parser.add_argument("-t", "--tokenizer", default="imtok-f8", help="a name, a tokenizer folder or a run")
    parser.add_argument("--held-out", type=float, default=0.0, help="only the share a run with this val_fraction kept")
    parser.add_argument("--size", type=int, help="side of the squares; the tokenizer's own by default")
    parser.add_argument("--picture", type=Path, help="where to write some originals above their reconstructions")
    parser.add_argument("--columns", type=int, default=8, help="photographs in that picture")
    return parser.parse_args()


if __name__ == "__main__":
    main()
