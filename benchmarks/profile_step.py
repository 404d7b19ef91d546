"""Where the time of a training step goes, by groups of operators, beside the bare forward and backward pass.

Each case is a preset, in each precision, as `benchmarks/train_throughput.py` runs it: the step of `imtok train`, and
`bare`, the forward and backward pass of encoder and decoder alone. Steps of both are profiled in turn. An operator's
time is the least that it took over the steps, since a step that other processes disturb is only ever slower.

An operator belongs to the part of the step that calls it: quantizer, losses, clipping, optimizer, EMA, metrics. A
backward operator belongs to the part of its forward one. In the networks the operator itself decides: convolutions,
group norm, SiLU, casts and copies, and the rest. `between operators` is the time of Python outside of any part. The
profiler itself takes some microseconds an operator.

    python benchmarks/profile_step.py --source ../shared/data/photos
"""

from __future__ import annotations

import argparse
import functools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import train_throughput
from machine import machine
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

import imtok.training.step as step_module
from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.stream import TrainingStream
from imtok.devices import resolve_device
from imtok.joint_batch import JointBatch
from imtok.quantizers import Quantizer
from imtok.training.ema import EMA
from imtok.training.metric_accumulator import MetricAccumulator
from imtok.training.optimizer import Optimizer
from imtok.training.skipped_steps import SkippedSteps

STEP, BETWEEN, OTHER = "step", "between operators", "other operators"
# The calls of which each part of a step consists.
MARKED: list[tuple[Any, str, str]] = [
    (Quantizer, "forward", "quantizer"),
    (step_module, "_reconstruction_loss", "losses"),
    (step_module, "forget_moved_codes", "optimizer"),
    (Optimizer, "clip", "clipping"),
    (Optimizer, "step", "optimizer"),
    (EMA, "restart_codes", "EMA"),
    (EMA, "update", "EMA"),
    (MetricAccumulator, "count", "metrics"),
    (MetricAccumulator, "add", "metrics"),
    (SkippedSteps, "count", "metrics"),
    (step_module, "to_float", "images to float"),
]
PARTS = list(dict.fromkeys(part for _, _, part in MARKED))
# The first group with a word in the name of an operator, or of one that calls it.
OPERATORS = {
    "convolutions": ("conv",),
    "group norm": ("group_norm", "GroupNorm"),
    "SiLU": ("silu", "Silu"),
    "casts and copies": ("copy", "aten::to", "ToCopy", "contiguous", "clone", "Clone"),
    "attention": ("attention", "Attention"),
    "residual sums": ("aten::add", "AddBackward", "AccumulateGrad"),
}
GROUPS = [*OPERATORS, *PARTS, OTHER, BETWEEN]

Milliseconds = dict[str, float]  # by group
Times = dict[tuple[str, str, int], float]  # milliseconds by group, name, and number among those of that name


def main() -> None:
    args = parse()
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    mark_parts()
    results = {
        f"{case}, {precision}": measure(case, precision, args, device)
        for case in args.case
        for precision in args.precision
    }
    for title, rows in results.items():
        print_table(title, rows)
    print(json.dumps({"benchmark": "profile_step", "cases": results, **machine(device), "settings": settings(args)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", nargs="+", default=train_throughput.CASES, help="presets, of kind vq")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `imtok train`")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--source", help="images; coloured clouds where it is left out")
    return parser.parse_args()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name != "source"}


def measure(case: str, precision: str, args: argparse.Namespace, device: torch.device) -> dict[str, Milliseconds]:
    """Profile the step and the bare passes of one preset in one precision."""
    typed = argparse.Namespace(**{**vars(args), "set": [*args.set, f"precision={precision}"]})
    config = train_throughput.configuration(case, typed)
    batches = photographs(args, config.seed) if args.source else clouds(args, device)
    rows = {name: train_throughput.make_row(name, config, device, batches[0]) for name in ("imtok", "bare")}
    for row in rows.values():
        for batch in batches[:3]:  # which start the codebook and the optimizer
            train_throughput.timed(row, [batch], device)
    found: dict[str, list[Times]] = {name: [] for name in rows}
    for batch in batches:
        for name, row in rows.items():
            found[name].append(profiled(row, batch, device))
    return {name: least(steps) for name, steps in found.items()}


def photographs(args: argparse.Namespace, seed: int) -> list[Tensor]:
    images = ImageCollection.open([args.source])
    stream = TrainingStream(
        images,
        size=256,
        crop=args.crop,
        flip=True,
        seed=seed,
        joint=JointBatch(args.batch_size),
        cache_bytes=0,
        workers=1,
    )
    return [stream.batch(number * args.batch_size).images for number in range(args.steps)]


def clouds(args: argparse.Namespace, device: torch.device) -> list[Tensor]:
    return train_throughput.pictures(args.steps, args.batch_size, args.crop, device)


def least(steps: list[Times]) -> Milliseconds:
    """Add the least time of each operator over the steps to its group."""
    spent: Counter[str] = Counter()
    for key in set().union(*steps):
        spent[key[0]] += min(step[key] for step in steps if key in step)
    return {name: round(value, 3) for name, value in spent.items()}


def mark_parts() -> None:
    """Put each part of a step between marks that the profiler records."""
    for owner, attribute, part in MARKED:
        setattr(owner, attribute, marked(part, getattr(owner, attribute)))


def marked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with record_function(part):
            return function(*args, **options)

    return call


def profiled(row: train_throughput.Row, batch: Tensor, device: torch.device) -> Times:
    """Take one step; return the time of each operator, without those that it calls."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler, record_function(STEP):
        train_throughput.timed(row, [batch], device)
    events = [event for event in profiler.events() or [] if event.device_type == torch.autograd.DeviceType.CPU]
    events.sort(key=lambda event: event.time_range.start)
    # Operators without a gradient carry the number of the next one that has one, so the last of a number counts.
    forward_parts = {event.sequence_nr: part_of(event) for event in events if not in_backward(event)}
    times: Times = {}
    occurrences: Counter[tuple[str, str]] = Counter()
    for event in events:
        name = (group(event, forward_parts), event.name)
        occurrences[name] += 1
        times[*name, occurrences[name]] = event.self_cpu_time_total / 1000
    return times


def group(event: FunctionEvent, forward_parts: dict[int, str | None]) -> str:
    """Name the group of an operator by the part that it or its forward operator is in, else by operators' names."""
    if event.name == STEP:
        return BETWEEN
    callers = lineage(event)
    part = part_of(event)
    if part is None and in_backward(event):
        part = forward_parts.get(callers[-1].sequence_nr)
    if part is not None:
        return part
    names = [caller.name for caller in callers]
    for name, words in OPERATORS.items():
        if any(word in caller for word in words for caller in names):
            return name
    return OTHER


def part_of(event: FunctionEvent) -> str | None:
    return next((caller.name for caller in lineage(event) if caller.name in PARTS), None)


def in_backward(event: FunctionEvent) -> bool:
    return any(caller.name.startswith("autograd::engine") for caller in lineage(event))


def lineage(event: FunctionEvent) -> list[FunctionEvent]:
    """Return an operator and those that call it, the innermost first."""
    found, caller = [], event
    while caller is not None and caller.name != STEP:
        found.append(caller)
        caller = caller.cpu_parent
    return found


def print_table(title: str, rows: dict[str, Milliseconds]) -> None:
    print(f"{title}: milliseconds of a step\n| group | imtok | share | bare | share |\n|---|---|---|---|---|")
    totals = {name: sum(row.values()) for name, row in rows.items()}
    for group_name in sorted(GROUPS, key=lambda name: -rows["imtok"].get(name, 0.0)):
        cells = (
            f"{row.get(group_name, 0):.2f} | {row.get(group_name, 0) / totals[name]:.1%}" for name, row in rows.items()
        )
        print(f"| {group_name} | " + " | ".join(cells) + " |")
    print(f"| all | {totals['imtok']:.2f} | | {totals['bare']:.2f} | |\n")


if __name__ == "__main__":
    main()
