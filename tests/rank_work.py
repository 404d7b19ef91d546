"""The work of one of several processes in the tests of joint training: `python rank_work.py RANK FOLDER`.

The processes meet through a file, in groups of one size after the other, so that one start of them serves many checks.
Each writes what it found as FOLDER/RANK.json.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from runs import TINY, VQ, stop_at, tiny
from typer.testing import CliRunner

import imtok.training.run as run_module
from imtok.cli import app
from imtok.config import TrainConfig, load_train_config, merge, preset, preset_names
from imtok.distributed import ranks_agree
from imtok.errors import DiskError, ImtokError, Interrupted
from imtok.files import write_atomically
from imtok.training import loop
from imtok.training.state import TrainState
from imtok.training.step import train_step

SETTINGS = [*VQ, "images=66", "batch_size=6", "accumulate=2", "checkpoint_every=6", "validate_every=30"]
SETTINGS += ["data.cache_gb=0", "data.flip=false", "data.rules=2", "keep_checkpoints=20"]


@contextmanager
def group(folder: Path, name: str, rank: int, ranks: int) -> Iterator[None]:
    """Let the first `ranks` processes meet; one alone needs no group."""
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=ranks)
    yield
    if ranks > 1:
        dist.destroy_process_group()


def trained(sources: Path, run: Path, **options: Any) -> dict[str, Any]:
    """Train and return the images of each step, known by their red, with how it ended."""
    rows: list[list[int]] = []

    def recording(state: TrainState, images: torch.Tensor) -> None:
        rows.append(images[:, 0, 0, 0].tolist())
        train_step(state, images)

    loop.train_step = recording
    try:
        report = loop.train([sources], run, tiny(*SETTINGS), **options)
    except ImtokError as error:
        return {"rows": rows, "error": str(error), "interrupted": isinstance(error, Interrupted)}
    finally:
        loop.train_step = train_step
    return {"rows": rows, "validation": report.validation, "best": report.best, "threads": torch.get_num_threads()}


def command(*words: object) -> list[Any]:
    """Call `imtok train` and return its exit code and all that it printed."""
    result = CliRunner().invoke(app, ["train", *map(str, words)])
    return [result.exit_code, result.output]


def commands(folder: Path, rank: int) -> dict[str, list[Any]]:
    """Call the command as a person might, with mistakes that all processes meet or one of them."""
    words = [word for setting in (*TINY, "quantizer.kind=fsq", "images=8") for word in ("--set", setting)]
    pictures, other = folder / "pictures", folder / ("other" if rank == 1 else "pictures")
    found = {
        "plan": command(pictures, "-o", folder / "plan", *words, "--dry-run", "--set", "batch_size=7"),
        "mistake": command(pictures, "-o", folder / "mistake", *words, "--set", "data.crop=17"),
        "too small": command(pictures, "-o", folder / "mistake", *words, "--set", "batch_size=1"),
        "one process": command(other, "-o", folder / "mistake", *words),
    }
    if rank == 0:
        run_module.write_atomically = refusing
    found["full disk"] = command(pictures, "-o", folder / "full", *words)
    run_module.write_atomically = write_atomically
    found["again"] = command(pictures, "-o", folder / "full", *words)
    found["finished"] = command(pictures, "-o", folder / "full", *words)
    return found


def refusing(path: Path, data: bytes) -> None:
    """Write a file, but none of a tokenizer and no checkpoint."""
    if path.name == "config.yaml":
        write_atomically(path, data)
    else:
        raise DiskError(path, "No space left on device", errno.ENOSPC)


def small_preset(name: str, vgg: Path) -> TrainConfig:
    """Make a preset small in all that costs time; what it computes stays."""
    values = preset(name)
    config = load_train_config(values, name)
    network = config.tokenizer.network
    small: dict[str, Any] = {
        "tokenizer": {"size": 32, "network": {"channels": [16] * len(network.channels), "blocks": 1}},
        "data": {"crop": 32},
        "adversarial": {"discriminator": {"channels": 8, "layers": 1}, "start": 0, "warmup": 0, "ramp": 0},
        "loss": {"perceptual_weights": str(vgg)},
    }
    small |= {"images": 6, "batch_size": 3, "accumulate": 1, "device": "cpu", "precision": "fp32", "threads": 1}
    small |= {"compile": False, "channels_last": False}
    return load_train_config(merge(values, small_codebook(values, small)), name)


def small_codebook(values: Mapping[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """Add a smaller number of codes, wherever the quantizer of a preset has one."""
    quantizer = values.get("tokenizer", {}).get("quantizer", {})
    for path in ((), ("part",)):
        part = quantizer
        for name in path:
            part = part.get(name, {})
        if "num_codes" in part:
            changed: dict[str, Any] = {"num_codes": 64}
            for name in reversed(path):
                changed = {name: changed}
            small = merge(small, {"tokenizer": {"quantizer": changed}})
    return small


def two_steps(config: TrainConfig, rank: int, ranks: int) -> dict[str, Any]:
    """Take two steps of a run and say whether all processes came to the same weights, and whether these moved."""
    torch.manual_seed(config.seed)
    state = TrainState(config, torch.device("cpu"), rank=rank, ranks=ranks)
    before = [tensor.clone() for tensor in state.tokenizer.decoder.state_dict().values()]
    pixels = torch.randint(256, (config.batch_size, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        train_step(state, pixels[state.joint.numbers].to(torch.uint8))
    after = state.tokenizer.decoder.state_dict().values()
    moved = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return {"agree": ranks_agree(state.agreed()), "moved": moved, "skipped": int(state.skipped.all)}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with group(folder, "first", rank, 2) if rank < 2 else nullcontext():
        if rank < 2:
            stop = stop_at(24) if rank == 0 else {}
            found["stopped"] = trained(folder / "pictures", folder / "run", **stop)
            if rank == 0:
                for ranks in (1, 2, 3):
                    shutil.copytree(folder / "run", folder / f"run{ranks}")
            found["presets"] = {
                name: two_steps(small_preset(name, folder / "vgg.pth"), rank, 2) for name in preset_names()
            }
    with group(folder, "all", rank, 3):
        found["3"] = trained(folder / "pictures", folder / "run3")
        other = folder / ("other" if rank == 2 else "pictures")
        found["others"] = trained(other, folder / "never")
    with group(folder, "commands", rank, 2) if rank < 2 else nullcontext():
        if rank < 2:
            found["commands"] = commands(folder, rank)
    for ranks in (1, 2):
        if rank < ranks:
            with group(folder, f"group{ranks}", rank, ranks):
                found[str(ranks)] = trained(folder / "pictures", folder / f"run{ranks}")
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
