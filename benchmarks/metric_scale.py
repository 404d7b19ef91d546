"""rFID, precision and recall at the number of images of a paper: seconds, memory, and bits that parts do not change.

The features are random, of the shape of Inception's: 2,048 float32 an image and side, at least 0, correlated. They come
in units of 500 images, as an evaluation saves them. Each metric is computed once by this process from all units, and
once more from the parts of `--processes` processes, which are merged in order; both must be equal to the bit, and the
second time half of the cores are used. Memory is the peak above the features themselves. The covariance costs 2 N D^2
operations a side, precision and recall 8 N^2 D.

    python benchmarks/metric_scale.py --images 50000
    python benchmarks/metric_scale.py --images 50000 --metrics rfid
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence

import torch
from machine import machine
from torch import Tensor, nn

from imtok.cores import usable_cores
from imtok.evaluation import METRICS, Metric, distributions

UNIT = 500  # images
FEATURES = 2048


def main() -> None:
    args = parse()
    units = [
        unit_of(number, min(UNIT, args.images - first)) for number, first in enumerate(range(0, args.images, UNIT))
    ]
    held = 2 * args.images * FEATURES * 4 / 2**20
    print(f"{args.images:,} images, features of {held:,.0f} MiB, {usable_cores()} cores\n")
    print("| metric | value | seconds | MiB above the features | equal for another cut and half the cores |")
    print("|---|---|---|---|---|")
    rows = []
    for name in args.metrics:
        before, start = peak_memory(), time.perf_counter()
        value = from_units(name, units).compute()
        seconds, memory = time.perf_counter() - start, peak_memory() - before
        distributions.usable_cores = lambda: max(1, usable_cores() // 2)
        again = from_processes(name, units, args.processes).compute() if args.again else None
        distributions.usable_cores = usable_cores
        equal = "not computed" if again is None else str(again == value)
        rows.append((name, value, seconds, memory, equal))
        print(f"| {METRICS[name].label} | {value:.6f} | {seconds:.1f} | {memory:,.0f} | {equal} |", flush=True)
        if again not in (None, value):
            raise SystemExit(f"{name}: {again!r} from parts, {value!r} from the whole")
    print(
        json.dumps({"benchmark": "metric_scale", "images": args.images, "rows": rows, **machine(torch.device("cpu"))})
    )


def unit_of(number: int, images: int) -> dict[str, Tensor]:
    """Draw the rows of a unit: originals with 64 directions in common, and reconstructions near them."""
    random = torch.Generator().manual_seed(number)
    directions = torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(0)) / 8
    originals = torch.randn(images, 64, generator=random) @ directions
    originals = (originals + 0.3 * torch.randn(images, FEATURES, generator=random) + 0.4).relu()
    spread = 0.2 + 2.5 * torch.rand(images, 1, generator=random)  # some lie outside of the originals' manifold
    restored = (originals + spread * torch.randn(images, FEATURES, generator=random)).relu()
    return {"restored": restored, "originals": originals}


def from_units(name: str, units: Sequence[dict[str, Tensor]]) -> Metric:
    metric = METRICS[name](nn.Identity())
    metric.network = None  # as after another process
    for unit in units:
        metric.add_rows(**unit)
    return metric


def from_processes(name: str, units: Sequence[dict[str, Tensor]], processes: int) -> Metric:
    """Cut the units into one block a process, join the rows of each, and merge the blocks in order."""
    share = -(-len(units) // processes)
    merged = from_units(name, ())
    for first in range(0, len(units), share):
        part = from_units(name, ())
        part.restore(from_units(name, units[first : first + share]).state())
        merged.merge(part)
    return merged


def peak_memory() -> float:
    """Return the peak of this process's memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=8, help="parts of the second computation")
    parser.add_argument("--metrics", nargs="+", default=["rfid", "precision", "recall"], choices=list(METRICS))
    parser.add_argument("--once", dest="again", action="store_false", help="compute nothing a second time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
