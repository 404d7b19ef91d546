"""Kills of random processes of a training run, which must end as if nothing had happened, bit for bit.

The script trains once without a kill. Then it begins the same run anew and kills one process at a random moment with
SIGKILL: in the start, a step, a validation, or while a checkpoint is written. It waits until torchrun has ended and
gives the same command again, until enough processes were killed and the run is finished. The tokenizer, the best one
and the log must have the bytes of the run without a kill.

    python benchmarks/kills.py
    python benchmarks/kills.py --from tars
    python benchmarks/kills.py --from http
    python benchmarks/kills.py --ranks 4 --kills 20 photos/ --options --set data.crop=64

Without SOURCE it draws pictures of its own: 40 in a folder, or 48 in six tars of unequal size, which are streamed from
the disk or from a server on this machine. Words after `--options` go to `imtok train` as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image

_FILES = ("tokenizer/model.safetensors", "best/model.safetensors", "metrics.jsonl")
_SETTINGS = {
    "tokenizer.size": 16,
    "network.fold": 2,
    "network.channels": "[8,16]",
    "network.blocks": 1,
    "quantizer": "{kind: vq, dim: 4, num_codes: 16}",
    "data.crop": 16,
    "data.val_fraction": 0.2,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "threads": 2,
}


@dataclass(frozen=True)
class Kill:
    """One kill and its consequences."""

    rank: int  # of the process that was killed
    after: float  # seconds after torchrun was started
    saved: int  # training images of the newest checkpoint at that moment
    ended_after: float  # seconds from the kill until torchrun and all processes had ended
    words: str  # the others' line about it, empty where the processes had not met yet


class Training:
    """One start of the command."""

    def __init__(self, command: Sequence[str | Path], ranks: int) -> None:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*launcher, "-m", "imtok", *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def pids(self) -> dict[int, int]:
        """Find torchrun's children by their ranks."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid:
                    names = dict(part.split("=", 1) for part in (folder / "environ").read_text().split("\0") if part)
                    found[int(names["RANK"])] = int(folder.name)
            except (OSError, KeyError, ValueError):
                continue
        return found

    def end(self, timeout: float) -> str:
        """Wait for the end and return what was said on standard error."""
        return self.process.communicate(timeout=timeout)[1]


def main() -> None:
    args = parse()
    draw = random.Random(args.seed)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=args.scratch))
        sources = args.sources or stack.enter_context(own_sources(args.source, Path(scratch) / "pictures"))
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        training = Training(command(args, sources, whole), args.ranks)
        start = seconds_until_training(whole, training)
        words = training.end(args.timeout)
        assert training.process.returncode == 0, words
        kills: list[Kill] = []
        while len(kills) < args.kills:
            kill = kill_one(Training(command(args, sources, killed), args.ranks), killed, draw, start, args)
            if kill is None:
                break
            kills.append(kill)
        training = Training(command(args, sources, killed), args.ranks)
        words = training.end(args.timeout)
        assert training.process.returncode == 0, words
        equal = {name: (whole / name).read_bytes() == (killed / name).read_bytes() for name in _FILES}
    report(args, kills, equal)
    if not all(equal.values()):
        sys.exit("the run that was killed differs from the one that was not")


def kill_one(training: Training, run: Path, draw: random.Random, start: float, args: argparse.Namespace) -> Kill | None:
    """Kill a random process at a random moment and wait for the end of all; None where the run ended before.

    Of three moments one is in the start, which takes about `start` seconds, and two are in the training after it.
    """
    rank, early, share = draw.randrange(args.ranks), draw.random() < 1 / 3, draw.random()
    if not early:
        seconds_until_training(run, training)
    moment = time.monotonic() + share * (start if early else args.span)
    while training.process.poll() is None and (time.monotonic() < moment or rank not in training.pids()):
        time.sleep(0.01)
    if training.process.poll() is not None:
        words = training.end(args.timeout)
        assert training.process.returncode == 0, words
        return None
    pids = training.pids()
    saved = max((int(path.stem) for path in run.glob("checkpoints/*.safetensors")), default=0)
    after = time.monotonic() - training.started
    os.kill(pids[rank], signal.SIGKILL)
    at = time.monotonic()
    text = training.end(args.timeout)
    ended = time.monotonic() - at
    left = [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    assert not left, f"processes {left} are still there"
    assert "Traceback" not in text.split("Sending process")[0].split("torch/distributed/elastic")[0], text
    words = next((line for line in text.splitlines() if "of this training has ended" in line), "")
    return Kill(rank, after, saved, ended, words)


def seconds_until_training(run: Path, training: Training) -> float:
    """Wait until this start has written a line of the log, and return the seconds since it began."""
    before = time.time() - (time.monotonic() - training.started)
    log = run / "timing.jsonl"
    while training.process.poll() is None:
        if log.exists() and log.stat().st_size and log.stat().st_mtime > before + 1:
            break
        time.sleep(0.05)
    return time.monotonic() - training.started


def command(args: argparse.Namespace, sources: Sequence[str | Path], run: Path) -> list[str | Path]:
    lengths = {"images": args.images, "checkpoint_every": args.every, "validate_every": 5 * args.every}
    settings = [word for name, value in (_SETTINGS | lengths).items() for word in ("--set", f"{name}={value}")]
    stream = ["--stream"] if args.source == "tars" else []
    return ["train", *sources, "-o", run, *stream, *settings, *args.options]


@contextmanager
def own_sources(kind: str, folder: Path) -> Iterator[list[str | Path]]:
    """Draw pictures, in a folder or in tars, and serve the tars where they are asked for by HTTP."""
    if kind == "folder":
        yield [drawn(folder, 40)]
        return
    tars = [tar_of(drawn(folder / str(number), 3 + 2 * number)) for number in range(6)]
    if kind == "tars":
        yield list(tars)
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield [f"http://127.0.0.1:{server.server_port}/{tar.name}" for tar in tars]
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, *args: object) -> None:
        pass


def tar_of(folder: Path) -> Path:
    """Pack a folder into a tar beside it."""
    with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return folder.with_suffix(".tar")


def drawn(folder: Path, count: int) -> Path:
    """Draw small pictures."""
    folder.mkdir(parents=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((24, 20), Image.Resampling.BICUBIC).save(folder / f"{seed:02}.png")
    return folder


def report(args: argparse.Namespace, kills: Sequence[Kill], equal: dict[str, bool]) -> None:
    print("| kill | rank | seconds after the start | images saved | all ended after, s | the others' words |")
    print("|---|---|---|---|---|---|")
    for number, kill in enumerate(kills, 1):
        print(
            f"| {number} | {kill.rank} | {kill.after:.1f} | {kill.saved} | {kill.ended_after:.1f} | "
            f"{kill.words or 'none, they had not met yet'} |"
        )
    print("| file | the same bytes as without a kill |")
    print("|---|---|")
    for name, same in equal.items():
        print(f"| {name} | {'yes' if same else 'NO'} |")
    record: dict[str, Any] = {
        "benchmark": "kills",
        "source": args.source,
        "ranks": args.ranks,
        "images": args.images,
        "seed": args.seed,
    }
    record |= {"kills": [asdict(kill) for kill in kills], "equal": equal}
    record["slowest_end"] = max((kill.ended_after for kill in kills), default=0.0)
    print(json.dumps(record | machine(torch.device("cpu"))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="images to train on, as for `imtok train`")
    parser.add_argument("--from", dest="source", choices=("folder", "tars", "http"), default="folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--images", type=int, default=8000, help="length of the run")
    parser.add_argument("--every", type=int, default=80, help="training images between checkpoints")
    parser.add_argument("--span", type=float, default=3.0, help="seconds of training in which a kill may come")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one start may take")
    parser.add_argument("--scratch", default=None, help="folder for temporary files")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of `imtok train`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
