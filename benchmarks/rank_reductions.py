"""The share of a training step that sums over ranks take, and the gain of sending them during the backward pass.

Ranks of a gloo process group on this machine train the same preset in three ways, in turn, step by step:

    overlap   as `imtok train` does: a bucket of gradients is sent as soon as the backward pass has made it
    after     all buckets are sent when the backward pass is over
    none      gradients are not summed (the other sums of a step remain: metrics, verdicts, statistics of codes)

A ratio is the median over the rounds of a step's time over that of `none` in the same round. Where all cores compute,
a sum competes with the backward pass that it overlaps; on GPUs the network works beside it. The bytes of a step are
those of the gradients; over R ranks each sends and receives 2 (R - 1) / R times as many. Run nothing else meanwhile.

    python benchmarks/rank_reductions.py
    python benchmarks/rank_reductions.py --preset vqgan-f16-1024 --set batch_size=4 data.crop=64 --rounds 10
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from machine import machine

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.training.gradient_sums import GradientSums
from imtok.training.state import TrainState
from imtok.training.step import train_step

WAYS = {"overlap": [], "after": ["arm"], "none": ["arm", "begin"]}  # what is left out of the sums
PLAIN = ["device=cpu", "threads=1", "precision=fp32", "compile=false", "channels_last=false", "loss.perceptual=0"]


def time_ways(name: str, settings: list[str], ranks: int = 2, rounds: int = 10) -> dict[str, Any]:
    """Return seconds of a step by way (medians), ratios to `none`, and megabytes of gradients a step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, Path(folder), name, settings, rounds)
        torch.multiprocessing.spawn(time_on_rank, arguments, nprocs=ranks)
        found: dict[str, Any] = json.loads((Path(folder) / "times.json").read_text())
    times = found.pop("times")
    ratios = {way: statistics.median(a / b for a, b in zip(times[way], times["none"], strict=True)) for way in WAYS}
    return found | {"seconds": {way: statistics.median(each) for way, each in times.items()}, "over_none": ratios}


def time_on_rank(rank: int, ranks: int, folder: Path, name: str, settings: list[str], rounds: int) -> None:
    """Take the steps on one rank, in a process of its own; the first writes their times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    try:
        config = config_of(name, settings)
        torch.manual_seed(config.seed)
        state = TrainState(config, torch.device("cpu"), rank=rank, ranks=ranks)
        generator = torch.Generator().manual_seed(rank)
        shape = (len(state.joint.numbers), 3, config.data.crop, config.data.crop)
        batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds + 1):
            for way, seconds in times.items():
                dist.barrier()
                start = time.perf_counter()
                with leaving_out(*WAYS[way]):
                    train_step(state, batch)
                if number:  # the first starts codebooks
                    seconds.append(time.perf_counter() - start)
        if rank == 0:
            players = [state.optimizer, *([state.adversary.optimizer] if state.adversary else [])]
            size = sum(each.numel() * each.element_size() for player in players for each in player.parameters)
            (folder / "times.json").write_text(json.dumps({"megabytes": size / 1e6, "times": times}))
    finally:
        dist.destroy_process_group()


def leaving_out(*names: str) -> AbstractContextManager[Any]:
    """Let these methods of the sums do nothing."""
    stack = ExitStack()
    for name in names:
        stack.enter_context(patch.object(GradientSums, name, lambda _: None))
    return stack


def config_of(name: str, settings: list[str]) -> TrainConfig:
    return load_train_config(merge(preset(name), parse_settings([*PLAIN, *settings])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["cpu-fsq-f8", "cpu-gan-f4"])
    parser.add_argument("--set", nargs="*", default=[], help="settings as for `imtok train --set`")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    rows = {}
    print("| preset | MB of gradients | step without sums | after the backward | during it |\n|---|---|---|---|---|")
    for name in args.preset:
        row = rows[name] = time_ways(name, args.set, args.ranks, args.rounds)
        seconds, ratios = row["seconds"], row["over_none"]
        print(
            f"| {name} | {row['megabytes']:.1f} | {1000 * seconds['none']:.0f} ms | {ratios['after']:.3f} | "
            f"{ratios['overlap']:.3f} |"
        )
    print(json.dumps({**machine(torch.device("cpu")), "settings": vars(args), "presets": rows}))


if __name__ == "__main__":
    main()
