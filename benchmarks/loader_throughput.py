"""Images per second of reading and decoding, of training, and of both at once.

Every row is one place where the images lie, and one way to decode them ahead of the trainer:

    folder, tar      listed before the first step, each image read by itself
    streamed, http   shards read whole, in windows: from the disk, and from `python -m http.server` on this machine
    threads          decoding threads, as `imtok train` has them
    processes        processes of torch's DataLoader, a batch each, for the sources that are listed

and has these columns, all at crops of 256 pixels from pictures of 256 pixels at their shorter side:

    loader           batches are taken and dropped
    step             optimisation steps on batches in memory
    both             steps on the batches of the loader
    joint            `both` over 1 / (1 / loader + 1 / step)
    shared wait      the share of time that `both` waits for a batch
    alone wait       the same for a step that sleeps and so leaves the cores to the loader

    cpu              the CPU time of this process in `loader` and `step`, over that in `both`; for threads

Decoding limits `loader`: about 6 ms of one core an image, half of it JPEG and half the bicubic resize. The cores limit
`both`: where all are busy in `loader` and in `step`, nothing but lost time separates it from the joint bound, so
`joint` must reach .95. With one thread `loader` leaves a core idle, and `joint` may be above 1. The sleeping step asks
for 1 / 1.3 of what `loader` gave just before; it must wait less than 3 % of the time. The default step costs as much as
some images' decoding; with --set none the step is that of the preset. Other work on the machine moves all columns but
`cpu`, which says whether loader and step cost each other anything.

Threads wait for each other asleep, as under `imtok train`. Rows take turns, and a figure is the median over rounds.
Each row's first batch is compared with that of one thread. Run nothing else meanwhile.

    python benchmarks/loader_throughput.py --source ../shared/data/photos > loader_throughput.txt
    python benchmarks/loader_throughput.py --source ../shared/data/photos --device cuda --set none \\
        --preset rotation-vqgan-f16 --workers 4 8 16

The second line has never been run: no GPU was at hand.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `imtok` does, before torch is loaded

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.stream import TrainingStream
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.stream import ShardStream
from imtok.devices import deterministic, resolve_device
from imtok.joint_batch import JointBatch
from imtok.training.resolve import resolve
from imtok.training.state import TrainState
from imtok.training.step import train_step

LISTED, STREAMED = ["folder", "tar"], ["streamed", "http"]
SMALL = ["network.patch_size=8", "network.channels=[32]", "network.blocks=1"]
HEADROOM = 1.3  # what the loader could deliver, over what the sleeping step asks for
SHARDS, WIDTH = 6, 2  # tars, and tars of a window
SEEN = 10**12  # training images that no row reaches, so that a loader works on to the end
AHEAD = 6  # batches that fill what is read ahead, before a measurement
MADE = (400, 460)  # width and height of made pictures

Row = tuple[str, str, int]  # source, kind, workers
Measured = dict[str, float]


@dataclass(frozen=True)
class Places:
    """Where the images lie."""

    folder: str
    tars: list[str]
    urls: list[str]


class Batches(Dataset[Tensor]):
    """The batches of a listed source by their first training image, for the processes of a DataLoader."""

    def __init__(self, stream: TrainingStream) -> None:
        self.stream = stream

    def __getitem__(self, start: int) -> Tensor:
        """Return the batch that begins with training image `start`: (N, 3, S, S) uint8."""
        return self.stream.batch(start).images


def main() -> None:
    args = parse()
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    config = configuration(args)
    rows = [
        (source, kind, workers)
        for source, kind, workers in itertools.product(args.sources, args.kinds, args.workers)
        if source in LISTED or kind == "threads"
    ]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        places = laid_out(Path(scratch), args, stack)
        loaders = {row: loader_of(row, places, config, device) for row in rows}
        for row, loader in loaders.items():
            check(row, loader, places, config, device)
        torch.manual_seed(0)
        found = measure(loaders, TrainState(config, device), args)
    report(found, config, device, args)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder of photographs; without it pictures are made")
    parser.add_argument("--sources", nargs="+", choices=[*LISTED, *STREAMED], default=[*LISTED, *STREAMED])
    parser.add_argument("--kinds", nargs="+", choices=["threads", "processes"], default=["threads", "processes"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--preset", default="cpu-fsq-f8")
    parser.add_argument("--set", nargs="+", default=SMALL, metavar="KEY=VALUE", help="of the step; none: the preset's")
    parser.add_argument("--size", type=int, default=256, help="of pictures and crops")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=24, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=240, help="pictures made where there is no --source")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of torch")
    return parser.parse_args()


def configuration(args: argparse.Namespace) -> TrainConfig:
    """Return the resolved configuration of the step."""
    typed = {
        "batch_size": args.batch_size, "device": args.device, "threads": args.threads, "images": 10**9,
        "data": {"crop": args.size}, "tokenizer": {"size": args.size},
    }  # fmt: skip
    settings = [] if args.set == ["none"] else args.set
    return resolve(load_train_config(merge(merge(preset(args.preset), typed), parse_settings(settings)), args.preset))


def laid_out(scratch: Path, args: argparse.Namespace, stack: ExitStack) -> Places:
    """Lay the images out as a folder, as tars, and as tars behind a web server that runs until `stack` is closed."""
    folder = args.source or made_pictures(scratch / "pictures", args.images)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    shards = scratch / "shards"
    shards.mkdir()
    for number in range(SHARDS):
        with tarfile.open(shards / f"shard-{number}.tar", "w") as tar:
            for path in files[number::SHARDS]:
                tar.add(path, path.relative_to(folder).as_posix())
    tars = sorted(map(str, shards.glob("*.tar")))
    urls: list[str] = []
    if "http" in args.sources:
        port = stack.enter_context(served(shards))
        urls = [f"http://127.0.0.1:{port}/{Path(tar).name}" for tar in tars]
    return Places(str(folder), tars, urls)


def made_pictures(folder: Path, count: int) -> Path:
    """Write JPEGs with the spectrum of photographs, roughly: coarse shapes in colour and fine noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize(MADE, Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = picture + random.normal(0, 12, picture.shape).astype(np.float32)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.jpg", quality=90)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder by a process of its own, on 127.0.0.1; yield its port."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found, "the web server did not start"
            yield int(found[1])
        finally:
            server.terminate()


def loader_of(row: Row, places: Places, config: TrainConfig, device: torch.device) -> Callable[[], Iterator[Tensor]]:
    """Return a function that begins to load: it returns an endless iterator of batches (N, 3, S, S) uint8."""
    source, kind, workers = row
    settings: dict[str, Any] = {
        "size": config.tokenizer.size, "crop": config.data.crop, "flip": True, "seed": 0,
        "joint": JointBatch(config.batch_size), "workers": workers, "pin": device.type == "cuda",
    }  # fmt: skip
    if source in STREAMED:
        shards = find_shards(places.tars if source == "streamed" else places.urls)
        stream = ShardStream(ShardReader(shards), width=WIDTH, max_shard_failures=0, **settings)
        return lambda: tensors(stream)
    images = ImageCollection.open([places.folder] if source == "folder" else places.tars)
    listed = TrainingStream(images, cache_bytes=0, **settings)
    return lambda: tensors(listed) if kind == "threads" else processed(listed, config.batch_size, workers)


def tensors(stream: TrainingStream | ShardStream) -> Iterator[Tensor]:
    with closing(stream.batches(0, SEEN)) as batches:
        for batch in batches:
            yield batch.images


def processed(stream: TrainingStream, batch_size: int, workers: int) -> Iterator[Tensor]:
    starts = range(0, 10**6 * batch_size, batch_size)
    pin, stream.pin = stream.pin, False  # the DataLoader pins in a thread of this process
    loader = DataLoader(
        Batches(stream),
        batch_size=None,
        sampler=starts,
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context="fork",
    )
    yield from loader


def check(
    row: Row, loader: Callable[[], Iterator[Tensor]], places: Places, config: TrainConfig, device: torch.device
) -> None:
    """Check that the first batches are those of one thread, which reads from the disk."""
    same = "folder" if row[0] == "folder" else "tar" if row[0] == "tar" else "streamed"
    alone = loader_of((same, "threads", 1), places, config, device)
    for number, (found, expected) in enumerate(zip(taken(loader, 3), taken(alone, 3), strict=True)):
        assert torch.equal(found, expected), f"{row}: batch {number} has other pixels than from one thread"


def taken(loader: Callable[[], Iterator[Tensor]], count: int) -> list[Tensor]:
    batches = loader()
    found = [batch.clone() for batch in itertools.islice(batches, count)]
    batches.close()  # type: ignore[attr-defined]
    return found


def measure(
    loaders: dict[Row, Callable[[], Iterator[Tensor]]], state: TrainState, args: argparse.Namespace
) -> dict[Row, list[Measured]]:
    """Measure every row once a round."""
    memory = taken(next(iter(loaders.values())), min(args.batches, 8))
    found: dict[Row, list[Measured]] = {row: [] for row in loaders}
    with deterministic(state.device, "bf16" if state.config.precision == "bf16" else "fp32"):
        for _ in range(args.rounds):
            for row, loader in loaders.items():
                found[row].append(measured(loader, state, memory, args))
                print(*row, json.dumps(found[row][-1]), file=sys.stderr, flush=True)
    return found


def measured(
    loader: Callable[[], Iterator[Tensor]], state: TrainState, memory: Sequence[Tensor], args: argparse.Namespace
) -> Measured:
    """Measure loader, step, and both, one after the other, with the CPU time that each takes of this process."""

    def step(batch: Tensor) -> None:
        train_step(state, batch)

    images = args.batches * args.batch_size
    alone, _, loader_cpu = timed(loader(), lambda _: None, args.batches, state.device)
    steps, _, step_cpu = timed(itertools.cycle(memory), step, args.batches, state.device)
    both, shared_wait, both_cpu = timed(loader(), step, args.batches, state.device)
    pause = alone / args.batches * HEADROOM
    _, alone_wait, _ = timed(loader(), lambda _: time.sleep(pause), args.batches, state.device)
    return {
        "loader": images / alone, "step": images / steps, "both": images / both, "joint": (alone + steps) / both,
        "shared_wait": shared_wait, "alone_wait": alone_wait, "sleep_ms": 1e3 * pause,
        "loader_cpu_ms": 1e3 * loader_cpu / images, "step_cpu_ms": 1e3 * step_cpu / images,
        "both_cpu_ms": 1e3 * both_cpu / images, "cpu": (loader_cpu + step_cpu) / both_cpu,
    }  # fmt: skip


def timed(
    batches: Iterator[Tensor], use: Callable[[Tensor], None], count: int, device: torch.device
) -> tuple[float, float, float]:
    """Use `count` batches; return seconds, the share of them spent waiting for batches, and CPU seconds.

    What is read ahead is full before, unless the loader is slower than its user.
    """
    for batch in itertools.islice(batches, AHEAD):
        use(batch)
    synchronize(device)
    waited, began, busy = 0.0, time.perf_counter(), time.process_time()
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        use(batch)
    synchronize(device)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    if hasattr(batches, "close"):
        batches.close()
    return seconds, waited / seconds, busy


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(
    found: dict[Row, list[Measured]], config: TrainConfig, device: torch.device, args: argparse.Namespace
) -> None:
    print(f"step: {args.preset} {' '.join(args.set)}, precision {config.precision}, batches of {args.batch_size}")
    print("| source | decoding | loader | step | both | joint | shared wait | alone wait | cpu |\n" + "|---" * 9 + "|")
    shared = {
        "benchmark": "loader_throughput", **machine(device, "pillow"),
        "settings": vars(args) | {"source": args.source and args.source.name},
    }  # fmt: skip
    records = []
    for (source, kind, workers), rounds in found.items():
        medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        cpu = f"{medians['cpu']:.3f}" if kind == "threads" else "–"
        print(
            f"| {source} | {workers} {kind} | {medians['loader']:.1f} | {medians['step']:.1f} | {medians['both']:.1f} "
            f"| {medians['joint']:.3f} | {medians['shared_wait']:.1%} | {medians['alone_wait']:.1%} | {cpu} |"
        )
        row = {"source": source, "kind": kind, "workers": workers}
        each = {name: [round(values[name], 4) for values in rounds] for name in rounds[0]}
        records.append(row | {name: round(value, 4) for name, value in medians.items()} | {"rounds": each} | shared)
    for record in records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
