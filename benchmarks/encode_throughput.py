"""Images per second of a whole `encode`, against what its two costs alone allow.

Every image costs reading, decoding and fitting, and it costs the encoder's forward. On a CPU both fall to the same
cores, so with d and f images per second of either alone nothing can pass 1 / (1/d + 1/f): the ceiling. On a GPU they
overlap, and the ceiling is the smaller of the two. Measured are

    forward   encoder and quantizer on ready uint8 batches: one thread a batch as `encode` does it, and, on a CPU,
              all threads on one batch; the ceiling takes the faster
    decode    reading, decoding and fitting, nothing else
    encode    the whole call: plan, tokenizer, units, commits and manifest, into a new folder

in turn, so that a drift of the machine meets all alike. What should limit `encode` is the forward; the gap to the
ceiling is hashing, syncing and waiting. Before the clock starts its codes are compared with those of the bare forward.

    python benchmarks/encode_throughput.py ../shared/data/photos
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

from imtok import Tokenizer, load
from imtok.config import TokenizerConfig
from imtok.cores import usable_cores
from imtok.data.containers import ImageFile
from imtok.data.images import decode_image, fit_image
from imtok.data.sources import find_sources
from imtok.devices import autocast, deterministic, resolve_device
from imtok.encoding import encode
from imtok.errors import ImageError
from imtok.parallel import in_order
from imtok.tokens import open_tokens


def main() -> None:
    args = parse()
    device = resolve_device(args.device)
    args.workers = args.workers or usable_cores()
    args.batch_size = args.batch_size or (64 if device.type == "cuda" else 16)
    with tempfile.TemporaryDirectory() as scratch, deterministic(device):
        args.tokenizer = args.tokenizer or untrained(Path(scratch) / "untrained")
        files = readable(find_sources([args.source]).files)
        parts = make_parts(args, device, files, Path(scratch))
        check(parts["encode"](), parts["forward, a thread a batch"](), files)
        speeds = measure(parts, len(files), args.rounds)
    report(speeds, device, vars(args) | {"images": len(files)})


def make_parts(
    args: argparse.Namespace, device: torch.device, files: list[ImageFile], scratch: Path
) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    tokenizer = load(args.tokenizer).to(device)
    runs = [files[start : start + args.batch_size] for start in range(0, len(files), args.batch_size)]

    def decode_run(run: list[ImageFile]) -> Tensor:
        fitted = [fit_image(decode_image(file.read()), tokenizer.config.size).pixels for file in run]
        missing = [torch.zeros_like(fitted[0])] * (args.batch_size - len(run))  # `encode` pads its last batch too
        return torch.stack(fitted + missing)

    def forward(batch: Tensor) -> Tensor:
        with autocast(device, args.precision):
            return tokenizer.encode(batch).cpu()

    def threaded(function: Callable[[Any], Tensor], items: list[Any]) -> list[Tensor]:
        return list(in_order(function, items, workers=args.workers, ahead=2 * args.workers))

    def whole() -> Path:
        folder = Path(tempfile.mkdtemp(dir=scratch)) / "tokens"
        options = {name: getattr(args, name) for name in ("device", "precision", "batch_size", "workers")}
        encode([args.source], folder, args.tokenizer, **options)
        return folder

    batches = threaded(decode_run, runs)
    parts: dict[str, Callable[[], Any]] = {
        "forward, a thread a batch": lambda: threaded(forward, batches),
        "decode": lambda: threaded(decode_run, runs),
        "encode": whole,
    }
    if device.type == "cpu":
        parts["forward, all threads on a batch"] = lambda: [forward(batch) for batch in batches]
    return parts


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared/data/photos"
    parser.add_argument("source", nargs="?", default=str(default), help="a folder of images")
    parser.add_argument("--tokenizer", help="its folder; an untrained one of the default configuration without")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def untrained(folder: Path) -> str:
    torch.manual_seed(0)
    Tokenizer(TokenizerConfig()).save(folder)
    return str(folder)


def readable(files: Iterable[ImageFile]) -> list[ImageFile]:
    """Those that decode: the parts alone have no way to skip."""
    kept = []
    for file in files:
        try:
            decode_image(file.read())
        except ImageError:
            continue
        kept.append(file)
    if not kept:
        sys.exit("no image here can be read")
    return kept


def check(folder: Path, plain: list[Tensor], files: list[ImageFile]) -> None:
    """The codes of `encode` are those of the bare forward, image by image."""
    tokens = open_tokens(folder)
    assert [key for key, _ in tokens] == [file.key for file in files]
    for (key, found), expected in zip(tokens, torch.cat(plain), strict=False):
        assert torch.equal(found, expected), key


def measure(parts: dict[str, Callable[[], object]], images: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of each part, one value a round; one round before that warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            if number:
                speeds[name].append(images / (time.perf_counter() - started))
    return speeds


def report(speeds: dict[str, list[float]], device: torch.device, settings: dict[str, Any]) -> None:
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    forward = max(value for name, value in medians.items() if name.startswith("forward"))
    decode, whole = medians["decode"], medians["encode"]
    ceiling = 1 / (1 / forward + 1 / decode) if device.type == "cpu" else min(forward, decode)
    width = max(map(len, medians))
    for name, values in speeds.items():
        print(f"{name:{width}}  {medians[name]:8.1f} images/s  ({min(values):.1f} to {max(values):.1f})")
    print(f"{'ceiling':{width}}  {ceiling:8.1f} images/s")
    print(f"encode is {whole / ceiling:.3f} of the ceiling and {whole / forward:.3f} of the bare forward")
    result = {
        "benchmark": "encode_throughput",
        "images_per_second": {name: round(value, 2) for name, value in medians.items()},
        "spread": {name: [round(min(values), 2), round(max(values), 2)] for name, values in speeds.items()},
        "ceiling": round(ceiling, 2),
        "of_ceiling": round(whole / ceiling, 4),
        "of_forward": round(whole / forward, 4),
        **machine(device, "pillow"),
        "settings": settings | {name: Path(settings[name]).name for name in ("source", "tokenizer")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
