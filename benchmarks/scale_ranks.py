"""Training by two processes of one thread each, against one process of two threads, on the same two cores.

All take optimisation steps on the same joint batches. The processes are started by `torch.distributed.run` and reduce
over gloo, or over NCCL with --device cuda, where each process has a GPU of its own. The rows of a case:

    one, 2 threads        one process
    one, 1 thread         one process that leaves a core idle
    two, 1 thread each    two processes, as under `torchrun`

The cores limit all rows: two threads wait for each other at each operation, two processes only where they reduce.
So two processes may be faster than one. Sums of floats take another order in each row; the losses of the steps must
agree within 1 %.

Each row reports images a second of the joint batch, and for two processes

    reducing           the share of a step in which a process is inside a reduction: it transfers, adds, or waits for
                       the other process. No overlap can save more
    transfer           the share that is left when the processes meet before each reduction, so that none waits
    bytes              what a process gives to reductions in a step, beside the count of `scale_arithmetic.py`

Rows take turns, a process started anew each time, and a figure is the median over rounds. Run nothing else meanwhile.

    python benchmarks/scale_ranks.py
    python benchmarks/scale_ranks.py --device cuda --cases rotation-vqgan-f16 --set batch_size=64 data.crop=256

The second line, for two GPUs, has never been run: none were at hand. `benchmarks/scale_arithmetic.py` has the
arithmetic for 8 and 64.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from machine import machine
from scale_arithmetic import step_of

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.devices import deterministic, resolve_device
from imtok.training.resolve import resolve
from imtok.training.state import TrainState
from imtok.training.step import train_step

CASES: dict[str, list[str]] = {
    "cpu-fsq-f8": [],
    "cpu-gan-f4": ["data.crop=32", "adversarial.r1=0"],
    "rotation-vqgan-f16": ["data.crop=64", "batch_size=2", "loss.perceptual=0"],  # needs no weights of VGG16
}
ROWS: dict[str, tuple[int, int]] = {  # processes, and threads of each
    "one, 2 threads": (1, 2),
    "one, 1 thread": (1, 1),
    "two, 1 thread each": (2, 1),
}
FROM_THE_START = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0"]
WARM = 3  # steps before any is timed
SAME_LOSS = 0.01

Found = dict[str, Any]


def main() -> None:
    args = parse()
    if args.row:
        work(args)
        return
    found: dict[str, dict[str, list[Found]]] = {case: {row: [] for row in ROWS} for case in args.cases}
    for _ in range(args.rounds):
        for case in args.cases:
            for row in ROWS:
                found[case][row].append(started(case, row, args))
                print(case, row, json.dumps(found[case][row][-1]), file=sys.stderr, flush=True)
            check(case, {row: rounds[-1] for row, rounds in found[case].items()})
    report(found, args)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="presets")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as of `imtok train`, for all cases")
    parser.add_argument("--steps", type=int, default=6, help="a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)  # in a process that this script starts
    return parser.parse_args()


def started(case: str, row: str, args: argparse.Namespace) -> Found:
    """Measure one row in processes of its own."""
    processes, threads = ROWS[row]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(Path(__file__).resolve()), "--row", row, "--cases", case, "--device", args.device]
    command += ["--steps", str(args.steps), *(["--set", *args.set] if args.set else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}  # as under `imtok`
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{case}, {row}:\n{ended.stderr[:3000]}")
    found: Found = json.loads(ended.stdout.splitlines()[-1])
    return found


def work(args: argparse.Namespace) -> None:
    """Measure the row of this process; the first rank prints what was found."""
    processes, threads = ROWS[args.row]
    torch.set_num_threads(threads)
    device = resolve_device(args.device)
    if processes > 1:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    config = configuration(args.cases[0], args)
    torch.manual_seed(0)
    rank = dist.get_rank() if processes > 1 else 0
    with deterministic(device, "bf16" if config.precision == "bf16" else "fp32"):
        found = measured(TrainState(config, device, rank=rank, ranks=processes), args.steps)
    if rank == 0:
        print(json.dumps(found), flush=True)
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def configuration(case: str, args: argparse.Namespace) -> TrainConfig:
    """Return the resolved configuration of a case, its discriminator active from the first step on."""
    values = preset(case)
    settings = [*CASES.get(case, []), *args.set, *(FROM_THE_START if "adversarial" in values else [])]
    typed = {"device": args.device, "images": 10**9}
    return resolve(load_train_config(merge(merge(values, typed), parse_settings(settings)), case))


def measured(state: TrainState, steps: int) -> Found:
    """Time steps as they are, then with the reductions timed, then with the ranks meeting before each of them."""
    joint, crop = state.joint, state.config.data.crop
    generator = torch.Generator().manual_seed(1)
    batch = torch.randint(0, 256, (joint.size, 3, crop, crop), dtype=torch.uint8, generator=generator)[joint.numbers]
    for _ in range(WARM):
        train_step(state, batch)
    state.metrics.clear()
    seconds = timed(state, batch, steps)
    found: Found = {"images_per_second": joint.size / seconds, "loss": state.metrics.means()["loss"]}
    if joint.ranks > 1:
        for name, meet in (("reducing", False), ("transfer", True)):
            with reductions(meet=meet) as spent:
                whole = timed(state, batch, steps)
            found[name] = spent["seconds"] / steps / (whole if name == "reducing" else seconds)
            found["bytes"] = spent["bytes"] / steps
    return found


def timed(state: TrainState, batch: torch.Tensor, steps: int) -> float:
    """Return the seconds of a step, the median of some."""
    values = []
    for _ in range(steps):
        began = time.perf_counter()
        train_step(state, batch)
        if state.device.type == "cuda":
            torch.cuda.synchronize(state.device)
        values.append(time.perf_counter() - began)
    return statistics.median(values)


class _Timed:
    """A reduction on its way, whose wait is timed."""

    def __init__(self, work: Any, spent: dict[str, float]) -> None:
        self.work, self.spent = work, spent

    def wait(self) -> None:
        began = time.perf_counter()
        if self.work is not None:
            self.work.wait()
        self.spent["seconds"] += time.perf_counter() - began


@contextmanager
def reductions(*, meet: bool) -> Iterator[dict[str, float]]:
    """Count the bytes of all-reduces and the seconds in them; with `meet` all ranks have come and none overlaps."""
    spent = {"seconds": 0.0, "bytes": 0.0}
    plain: Callable[..., Any] = dist.all_reduce

    def all_reduce(tensor: torch.Tensor, *args: Any, async_op: bool = False, **kwargs: Any) -> Any:
        if meet:
            dist.barrier()
        spent["bytes"] += tensor.numel() * tensor.element_size()
        began = time.perf_counter()
        work = plain(tensor, *args, async_op=async_op and not meet, **kwargs)
        spent["seconds"] += time.perf_counter() - began
        return _Timed(work, spent) if async_op else work

    with patch.object(dist, "all_reduce", all_reduce):
        yield spent


def check(case: str, found: dict[str, Found]) -> None:
    """Check that all rows trained alike."""
    losses = {row: each["loss"] for row, each in found.items()}
    least, most = min(losses.values()), max(losses.values())
    assert most - least <= SAME_LOSS * abs(most), f"{case}: the rows have other losses: {losses}"


def report(found: dict[str, dict[str, list[Found]]], args: argparse.Namespace) -> None:
    cases = {}
    for case, rows in found.items():
        expected = step_of(configuration(case, args)).reduced
        medians = {
            row: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            for row, rounds in rows.items()
        }
        base = medians["one, 2 threads"]["images_per_second"]
        print(f"{case}: {expected / 1e6:.3f} MB a step by the arithmetic")
        print("| row | images/s | over one of 2 threads | reducing | transfer | MB a step |\n" + "|---" * 6 + "|")
        for row, each in medians.items():
            each["efficiency"] = each["images_per_second"] / base
            two = [f"{each[name]:.1%}" for name in ("reducing", "transfer")] if "bytes" in each else ["–", "–"]
            size = f"{each['bytes'] / 1e6:.3f}" if "bytes" in each else "–"
            print(
                f"| {row} | {each['images_per_second']:.2f} | {each['efficiency']:.3f} | {' | '.join(two)} | {size} |"
            )
        cases[case] = {"expected_bytes": expected, "rows": medians, "rounds": rows}
    shared = machine(resolve_device(args.device))
    print(json.dumps({"benchmark": "scale_ranks", "cases": cases, **shared, "settings": vars(args)}))


if __name__ == "__main__":
    main()
