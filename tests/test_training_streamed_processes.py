"""Training on a stream by several real processes: stopped in mid-window and resumed on any number of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from making import encoded, write_tar
from PIL import Image
from runs import VQ, stop_at, tiny

from imtok.data.streaming.dealing import Dealing
from imtok.data.streaming.windows import WindowOrder
from imtok.errors import Interrupted
from imtok.joint_batch import JointBatch
from imtok.training import loop
from imtok.training.state import TrainState
from imtok.training.step import train_step

SIZES = [9, 2, 13, 4, 7, 3, 11]  # images of the shards; an epoch has three windows and a last one of one shard
BROKEN = 5  # a shard that is cut short
SETTINGS = [*VQ, "images=96", "batch_size=6", "accumulate=2", "checkpoint_every=6", "validate_every=90", "threads=1"]
SETTINGS += [
    "data.stream=true",
    "data.window=2",
    "data.max_shard_failures=1",
    "data.workers=1",
    "data.rules=2",
    "seed=5",
]
STOPPED = 5  # steps before the stop; the process that asks has done one less
RANKS = (1, 2, 3)


@contextmanager
def group(store: Any, name: str, rank: int, ranks: int) -> Iterator[bool]:
    """Let the first `ranks` processes meet, as torchrun lets them; one alone needs no group."""
    if rank < ranks > 1:
        dist.init_process_group("gloo", store=dist.PrefixStore(name, store), rank=rank, world_size=ranks)
    try:
        yield rank < ranks
    finally:
        if rank < ranks > 1:
            dist.destroy_process_group()


def trained(folder: Path, run: str, **options: Any) -> list[list[int]]:
    """Train, to a stop or to the end, and return this process's images of each step, known by their red."""
    rows: list[list[int]] = []

    def recording(state: TrainState, images: torch.Tensor) -> None:
        rows.append(images[:, 0, 0, 0].tolist())
        train_step(state, images)

    loop.train_step = recording  # type: ignore[assignment]
    with suppress(Interrupted):
        loop.train([folder / "shards"], folder / run, tiny(*SETTINGS), val=[folder / "val"], **options)
    loop.train_step = train_step
    return rows


def train_on_rank(rank: int, port: int, folder: Path) -> None:
    """Train unbroken by three processes; stop, and resume by 3, 2 and 1; writes the images of each step."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
    found: dict[str, Any] = {}
    with group(store, "three", rank, 3):
        found["unbroken"] = trained(folder, "unbroken")
        found["stopped"] = trained(folder, "run", **(stop_at(6 * (STOPPED - 1)) if rank == 0 else {}))
        if rank == 0:
            for ranks in RANKS:
                shutil.copytree(folder / "run", folder / f"run{ranks}")
        dist.barrier()
        found["3"] = trained(folder, "run3")
    for ranks in (2, 1):
        with group(store, f"group{ranks}", rank, ranks) as taking_part:
            found[str(ranks)] = trained(folder, f"run{ranks}") if taking_part else []
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which three processes have trained."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "shards").mkdir()
    first = 0
    for shard, size in enumerate(SIZES):
        members = [(f"{number}.png", encoded(coloured(number))) for number in range(first, first + size)]
        path = write_tar(folder / "shards" / f"{shard}.tar", members)
        if shard == BROKEN:
            path.write_bytes(path.read_bytes()[:1000])
        first += size
    (folder / "val").mkdir()
    for number in range(8):
        coloured(200 + number).save(folder / "val" / f"{number}.png")
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(train_on_rank, args=(server.port, folder), nprocs=3)
    return folder


def coloured(number: int) -> Image.Image:
    """A picture whose red is its number; green and blue fall off to a side, so that there is something to learn."""
    ramp = Image.linear_gradient("L").resize((16, 16))
    return Image.merge("RGB", (Image.new("L", (16, 16), number), ramp, ramp.rotate(90)))


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, list[list[int]]]]:
    """The images that each process recorded."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


ORDER = WindowOrder(len(SIZES), 2, seed=5)


def of_window(number: int) -> list[int]:
    """The images of a window in the order of their use."""
    window = ORDER.window(number)
    images = [
        image
        for shard in window.shards
        if shard != BROKEN
        for image in range(sum(SIZES[:shard]), sum(SIZES[: shard + 1]))
    ]
    return [images[index] for index in ORDER.images(window, len(images))]


def predicted(ranks: int, steps: int, place: Any = None) -> tuple[list[list[list[int]]], Any]:
    """The images of each rank at each step by the rules of dealing alone, and the place after them."""
    counts = [len(JointBatch(6, 2, rank, ranks).numbers) for rank in range(ranks)]
    dealing = Dealing(counts, ORDER.per_epoch, place)
    rows: list[list[list[int]]] = [[] for _ in range(ranks)]
    for _ in range(steps):
        for rank in range(ranks):
            pieces = dealing.turn(rank, lambda window: len(of_window(window)))
            rows[rank].append(
                [image for piece in pieces for image in of_window(piece.window)[piece.start : piece.stop]]
            )
    return rows, dealing.place()


def test_processes_train_on_what_the_dealing_says(found: list[dict[str, list[list[int]]]]) -> None:
    assert [rank["unbroken"] for rank in found] == predicted(3, 16)[0]
    assert [rank["stopped"] for rank in found] == predicted(3, STOPPED)[0]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_resumed_in_mid_window_has_each_image_once(ranks: int, found: list[dict[str, list[list[int]]]]) -> None:
    rest, end = predicted(ranks, 16 - STOPPED, predicted(3, STOPPED)[1])
    assert [rank[str(ranks)] for rank in found[:ranks]] == rest
    seen = Counter(image for rank in found for step in rank["stopped"] + rank[str(ranks)] for image in step)
    offsets = {window: offset for held in [*end["ranks"], end["queue"]] for window, offset in held}
    assert seen == Counter(image for number in range(end["next"]) for image in of_window(number)[: offsets.get(number)])


def test_as_many_processes_resume_to_the_same_weights(folder: Path) -> None:
    weights = {
        run: safetensors.torch.load_file(folder / run / "tokenizer" / "model.safetensors")
        for run in ("unbroken", "run3", "run1", "run2")
    }
    torch.testing.assert_close(weights["run3"], weights["unbroken"], rtol=0, atol=0)
    assert any(not torch.equal(weights["run1"][name], tensor) for name, tensor in weights["run2"].items())
