"""A tokenizer exported by `imtok export`: time to export, bytes, equal tokens, and images a second beside torch.

Every photograph is brought to shorter side S by Pillow's bicubic filter and cropped to its central S x S. Tokens are
compared image by image; images are decoded from the same tokens. Speeds are of batches of `--batch-size`, in rounds
that take turns, best of the rounds: other work on the machine only slows a round.

    python benchmarks/exported.py ../shared/data/photos --images 64
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

import imtok
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.interop.exporting.job import FORMATS, export_tokenizer
from imtok.tokenizer import to_float


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    tokenizer = imtok.load(args.tokenizer)
    size = args.size or tokenizer.config.size
    chosen = [data for _, data in zip(range(args.images), ImageCollection.open([args.source]), strict=False)]
    images = to_float(torch.stack([fit_image(decode_image(data), size).pixels for _, data in chosen]))
    tokens = torch.cat([tokenizer.encode(part) for part in images.split(args.batch_size)])
    runs: dict[str, Any] = {"torch": tokenizer}
    rows: dict[str, dict[str, float]] = {"torch": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.formats:
            begun = time.perf_counter()
            report = export_tokenizer(args.tokenizer, Path(scratch) / name, name)
            rows[name] = {"seconds": time.perf_counter() - begun, "bytes": sum(report.sizes.values())}
            runs[name] = FORMATS[name].read(report.folder)
        for name, run in runs.items():
            found = torch.cat([run.encode(part) for part in images.split(args.batch_size)])
            rows[name] |= {"tokens": tokens.numel(), "different": int((found != tokens).sum())}
        part, codes = images[: args.batch_size], tokens[: args.batch_size]
        for way, given in (("encode", part), ("decode", codes)):
            best = rates({name: getattr(run, way) for name, run in runs.items()}, given, args.rounds)
            for name, rate in best.items():
                rows[name][way] = rate
    report_rows(rows, len(images), size)
    packages = [package for name in args.formats for package in FORMATS[name].packages]
    print(json.dumps({"benchmark": "exported", **machine(torch.device("cpu"), *packages), "rows": rows}))


def rates(calls: dict[str, Callable[[Tensor], Tensor]], given: Tensor, rounds: int) -> dict[str, float]:
    """Return images a second of each call, the best of rounds in which all take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):  # the first warms up, and is never the best
        for name, call in calls.items():
            begun = time.perf_counter()
            call(given)
            least[name] = min(least[name], time.perf_counter() - begun)
    return {name: len(given) / seconds for name, seconds in least.items()}


def report_rows(rows: dict[str, dict[str, float]], images: int, size: int) -> None:
    print(f"{images} images at {size} px")
    print(f"{'':14}{'export':>9}{'files':>10}{'tokens that differ':>24}{'encode':>12}{'decode':>12}")
    for name, row in rows.items():
        export = f"{row['seconds']:.1f} s" if "seconds" in row else "-"
        files = f"{row['bytes'] / 1e6:.1f} MB" if "bytes" in row else "-"
        differ = f"{row['different']:,} of {row['tokens']:,}"
        print(f"{name:14}{export:>9}{files:>10}{differ:>24}{row['encode']:>8.1f} i/s{row['decode']:>8.1f} i/s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder or a tar of photographs")
    parser.add_argument("--tokenizer", default="imtok-f8")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=["torch-export", "onnx"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, help="side in pixels (default: the tokenizer's)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
