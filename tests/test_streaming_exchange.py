"""The exchange of windows' sizes, and streams of real processes that share it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import closing
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from shards_in_memory import SIDE, MemorySource, expected_images, image_names

from imtok.data.batch import Batch
from imtok.data.streaming.exchange import Exchange, Fetched, LocalExchange, StoreExchange
from imtok.data.streaming.source import never
from imtok.data.streaming.stream import ShardStream
from imtok.errors import Interrupted, TrainingError
from imtok.joint_batch import JointBatch

SIZES = [13, 2, 9, 16, 5, 8, 1, 10]


def exchanges(kind: str, ranks: int, **settings: Any) -> list[Exchange]:
    """The exchange as each rank has it."""
    if kind == "local":
        return [LocalExchange(ranks, **settings)] * ranks
    store = dist.HashStore()
    return [StoreExchange(store, rank, ranks, **settings) for rank in range(ranks)]


@pytest.mark.parametrize("kind", ["local", "store"])
def test_every_other_rank_receives_a_window(kind: str) -> None:
    first, *others = exchanges(kind, 3)
    fetched = Fetched(5, {7: "the server answers 500"})
    threading.Timer(0.05, first.publish, (12, fetched)).start()
    assert [other.wait(12, never) for other in others] == [fetched, fetched]


@pytest.mark.parametrize("kind", ["local", "store"])
def test_a_wait_ends_on_a_stop_and_after_its_time(kind: str) -> None:
    with pytest.raises(Interrupted):
        exchanges(kind, 2)[0].wait(3, lambda: True)
    with pytest.raises(TrainingError, match=r"window 3 of the stream was not fetched .* for 0\.05 seconds"):
        exchanges(kind, 2, timeout=0.05)[0].wait(3, never)


def test_a_store_holds_no_window_that_all_ranks_know() -> None:
    store = dist.HashStore()
    ranks = [StoreExchange(store, rank, 3) for rank in range(3)]
    before = store.num_keys()
    for window in range(20):
        ranks[window % 3].publish(window, Fetched(window))
        for rank in range(3):
            if rank != window % 3:
                assert ranks[rank].wait(window, never).size == window
    assert store.num_keys() == before


def test_a_later_run_meets_no_window_of_an_earlier_one() -> None:
    store = dist.HashStore()
    StoreExchange(store, 0, 2).publish(4, Fetched(5))
    StoreExchange(store, 1, 2)
    first, second = (StoreExchange(store, rank, 2) for rank in range(2))
    with pytest.raises(Interrupted):
        second.wait(4, iter([False, False, True]).__next__)
    first.publish(4, Fetched(6))
    assert second.wait(4, never).size == 6


# Streams of three processes, as torchrun starts them: the store is another process's.

STEPS, LATER = 3, 15  # batches before the change of ranks, and after it
SETTINGS: dict[str, Any] = {
    "width": 2, "size": SIDE, "crop": 3, "flip": True, "permute_channels": True, "seed": 3, "workers": 1,
    "max_shard_failures": 1,
}  # fmt: skip


def source() -> MemorySource:
    return MemorySource(SIZES, failing=[7])


def stream_on_rank(rank: int, port: int, folder: Path) -> None:
    """Take batches of three processes, then go on from their place with 3, 2 and 1; writes what became of all."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=3)
    try:
        default = dist.distributed_c10d._get_default_store()

        def taken(ranks: int, batches: int, place: Any = None, **changes: Any) -> list[Batch]:
            if rank >= ranks:
                return []
            exchange = StoreExchange(default, rank, ranks)
            joint = JointBatch(8, 1, rank, ranks)
            stream = ShardStream(source(), joint=joint, exchange=exchange, **(SETTINGS | changes))
            with closing(stream.batches(0 if place is None else 8 * STEPS, 8 * 10**6, place)) as endless:
                return list(islice(endless, batches))

        dist.barrier()
        keys = default.num_keys()
        unbroken = taken(3, STEPS + LATER)
        place = json.loads(json.dumps(unbroken[STEPS - 1].place))
        resumed = taken(3, LATER, place)
        same = all(
            torch.equal(one.images, other.images) and one.place == other.place
            for one, other in zip(unbroken[STEPS:], resumed, strict=True)
        )
        whole: dict[str, Any] = {"crop": SIDE, "flip": False, "permute_channels": False}
        first = taken(3, STEPS, **whole)
        rest = {ranks: taken(ranks, LATER, place, **whole) for ranks in (3, 2, 1)}
        dist.barrier()
        found = {
            "same": same,
            "first": image_names(first),
            "rest": {ranks: image_names(batches) for ranks, batches in rest.items()},
            "places": {ranks: batches[-1].place for ranks, batches in rest.items() if batches},
            "keys": default.num_keys() - keys,
        }
        (folder / f"{rank}.json").write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_processes_resume_in_mid_window_on_any_number_of_them(tmp_path: Path) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(stream_on_rank, args=(server.port, tmp_path), nprocs=3)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert all(rank["same"] for rank in found)
    assert max(rank["keys"] for rank in found) <= 6 * 3 * 5  # of windows that nobody had to wait for any more
    for ranks in ("3", "2", "1"):
        places = [rank["places"][ranks] for rank in found[: int(ranks)]]
        assert all(place == places[0] for place in places)
        names = Counter((shard, index) for rank in found for shard, index in [*rank["first"], *rank["rest"][ranks]])
        assert sum(names.values()) == 8 * (STEPS + LATER)
        assert names == expected_images(
            source(), ShardStream(source(), joint=JointBatch(8), **SETTINGS).order, places[0]
        )
