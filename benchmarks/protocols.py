"""How far the protocol of evaluation alone moves the metrics of one tokenizer on the same photographs.

The first table has the tokenizer under each protocol, and the range from the least to the largest value. The second
starts from imtok's own protocol and takes one part of another: how pictures become squares, how reconstructions are
rounded, or how the metric is computed. Its numbers are changes.

    python benchmarks/protocols.py ../shared/data/photos --held-out 0.08
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor

import imtok
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image
from imtok.evaluation import METRICS
from imtok.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS, Protocol

NAMES = ("psnr", "ssim", "ms_ssim")


@dataclass(frozen=True)
class Passed:
    """Squares that have passed a tokenizer."""

    originals: Tensor  # (N, 3, S, S) uint8
    decoded: Tensor  # (N, 3, S, S) floats


def main() -> None:
    args = parse()
    tokenizer = imtok.load(args.tokenizer)
    images = ImageCollection.open([args.source])
    if args.held_out:
        images = images.split(args.held_out)[1]
    size = args.size or tokenizer.config.size
    pictures = [np.asarray(decode_image(data)) for _, data in images]
    names = [name for name in NAMES if METRICS[name].smallest <= size]
    own = PROTOCOLS[DEFAULT_PROTOCOL]
    passed = {name: run(tokenizer, protocol, pictures, size) for name, protocol in PROTOCOLS.items()}
    figures = {name: measured(protocol, passed[name], names) for name, protocol in PROTOCOLS.items()}
    parts: dict[str, dict[str, dict[str, float]]] = {}
    for name, other in PROTOCOLS.items():
        if other is own:
            continue
        square = replace(own, to_square=other.to_square)
        rounding = replace(
            own, to_levels=other.to_levels, to_floats=other.to_floats, rounds_originals=other.rounds_originals
        )
        metric = replace(own, metrics=other.metrics, forms=other.forms)
        parts[name] = {
            "square": measured(own, run(tokenizer, square, pictures, size), names),
            "rounding": measured(rounding, passed[DEFAULT_PROTOCOL], names),
            "metric": measured(metric, passed[DEFAULT_PROTOCOL], names),
        }
    report(figures, parts, names, f"{len(pictures)} photographs, {size} x {size} px, {args.tokenizer}")
    settings = {"tokenizer": tokenizer.fingerprint, "size": size, "held_out": args.held_out, "images": len(pictures)}
    print(json.dumps({"figures": figures, "parts": parts, **settings, **machine(torch.device("cpu"), "pillow")}))


def run(tokenizer: imtok.Tokenizer, protocol: Protocol, pictures: Sequence[np.ndarray], size: int) -> Passed:
    """Bring pictures to squares and pass them through the tokenizer, 8 at a time."""
    originals = torch.stack([protocol.prepare(pixels, size) for pixels in pictures])
    decoded = [tokenizer.decode(tokenizer.encode(protocol.to_input(part))) for part in originals.split(8)]
    return Passed(originals, torch.cat(decoded))


def measured(protocol: Protocol, passed: Passed, names: Sequence[str]) -> dict[str, float]:
    """Measure what has passed a tokenizer, by name of the metric; means are weighed as the protocol weighs them."""
    found = {}
    for name in names:
        metric = protocol.metric(name)()
        metric.update(*protocol.pair(protocol.form(name), passed.decoded, passed.originals))
        values = metric.state()["values"].numpy()
        found[name] = float(np.average(values, weights=protocol.weights(len(values))))
    return found


def report(
    figures: dict[str, dict[str, float]],
    parts: dict[str, dict[str, dict[str, float]]],
    names: Sequence[str],
    title: str,
) -> None:
    """Print both tables."""
    print(f"{title}\n")
    labels = [METRICS[name].label for name in names]
    print(f"| protocol | {' | '.join(labels)} |\n{'|---' * (len(names) + 1)}|")
    for protocol, values in figures.items():
        print(f"| {protocol} | {' | '.join(METRICS[name].format(values[name]) for name in names)} |")
    ranges = {
        name: max(each[name] for each in figures.values()) - min(each[name] for each in figures.values())
        for name in names
    }
    print(f"| range | {' | '.join(METRICS[name].format(ranges[name]) for name in names)} |\n")
    print(f"| one part of | part | {' | '.join(labels)} |\n{'|---' * (len(names) + 2)}|")
    for protocol, by_part in parts.items():
        for part, values in by_part.items():
            changes = [f"{values[name] - figures[DEFAULT_PROTOCOL][name]:+.{METRICS[name].digits}f}" for name in names]
            print(f"| {protocol} | {part} | {' | '.join(changes)} |")
    print()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder or tar of photographs")
    parser.add_argument("-t", "--tokenizer", default="imtok-f8", help="a name, a tokenizer folder or a run")
    parser.add_argument("--held-out", type=float, default=0.0, help="only the share a run with this val_fraction kept")
    parser.add_argument("--size", type=int, help="side of the squares; the tokenizer's own by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
