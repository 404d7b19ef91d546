"""The stream of shards: what its batches hold, what it keeps in memory, what it survives, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
import torch
from shards_in_memory import SIDE, MemorySource, all_images, expected_images, image_names

from imtok.data.batch import Batch
from imtok.data.streaming.exchange import LocalExchange
from imtok.data.streaming.stream import ShardStream
from imtok.errors import Interrupted, TrainingError
from imtok.joint_batch import JointBatch

SIZES = [5, 9, 3, 7, 1, 12, 4, 8]  # 49 images
EPOCH = sum(SIZES)


def stream(source: MemorySource, **changes: Any) -> ShardStream:
    settings: dict[str, Any] = {
        "width": 2, "size": SIDE, "crop": SIDE, "flip": False, "seed": 3, "joint": JointBatch(7), "workers": 2,
        "max_shard_failures": 0,
    }  # fmt: skip
    return ShardStream(source, **(settings | changes))


def stored(place: Mapping[str, Any] | None) -> Any:
    """A place as it comes back from a checkpoint."""
    return json.loads(json.dumps(place))


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    names = image_names(stream(MemorySource(SIZES)).batches(0, 3 * EPOCH))
    epochs = [names[start : start + EPOCH] for start in range(0, 3 * EPOCH, EPOCH)]
    assert all(sorted(epoch) == all_images(SIZES) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_stream_resumed_anywhere_equals_the_unbroken_one() -> None:
    source = MemorySource([20] * 4)

    def crops(place: Mapping[str, Any] | None = None, seen: int = 0, **changes: Any) -> list[Batch]:
        settings = {"crop": 2, "flip": True, "permute_channels": True, "width": 3}
        return list(stream(source, **(settings | changes)).batches(seen, 140, place))

    unbroken = crops()
    assert len(unbroken) == 20
    assert not torch.equal(unbroken[0].images, crops(seed=4)[0].images)
    for steps in (1, 8, 13):
        resumed = crops(stored(unbroken[steps - 1].place), 7 * steps, workers=1)
        assert len(resumed) == 20 - steps
        for one, other in zip(unbroken[steps:], resumed, strict=True):
            torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
            assert one.place == other.place


def test_no_more_than_two_windows_are_in_memory() -> None:
    source = MemorySource([6] * 40)
    with closing(stream(source, width=3, joint=JointBatch(40)).batches(0, 10**6)) as batches:
        for _ in range(30):  # a batch needs more than two windows
            next(batches)
        assert source.memory.most == 2 * 3 * 6
    assert source.memory.now == 0


def test_the_next_image_of_its_window_replaces_an_unreadable_one() -> None:
    source = MemorySource([4, 4], broken=[(0, 1), (0, 2)])
    reader = stream(source, joint=JointBatch(8))
    (batch,) = reader.batches(0, 8)
    assert Counter(image_names([batch])) == Counter({(0, 0): 1, (0, 3): 3} | dict.fromkeys(all_images({1: 4}), 1))
    assert sorted(reader.unreadable) == ["000/1.png", "000/2.png"]


def test_failed_shards_are_named_and_left_out_of_their_windows() -> None:
    source = MemorySource(SIZES, failing=[1], broken=all_images({0: 0}) + [(3, index) for index in range(7)])
    reader = stream(source, max_shard_failures=2)
    left = [(shard, index) for shard, index in all_images(SIZES) if shard not in (1, 3)]
    batches = list(reader.batches(0, 2 * len(left) // 7 * 7))
    assert sorted(image_names(batches)[: len(left)]) == left
    assert reader.failures["memory://set/001.tar"] == "the server answers 500"
    assert "none of its images can be read" in reader.failures["memory://set/003.tar"]
    assert batches[-1].place is not None
    assert batches[-1].place["failures"] == [1, 3]


def test_more_failed_shards_than_allowed_end_the_run() -> None:
    source = MemorySource(SIZES, failing=[1, 4, 6])
    with pytest.raises(TrainingError, match=r"3 shards have failed, and 2 may .*the server answers 500"):
        list(stream(source, max_shard_failures=2).batches(0, 10 * EPOCH))
    assert list(stream(source, max_shard_failures=3).batches(0, 70))


def test_a_stream_without_any_readable_shard_ends() -> None:
    with pytest.raises(TrainingError, match="no shard of a whole epoch"):
        list(stream(MemorySource([3, 3, 3], failing=range(3)), max_shard_failures=9).batches(0, 70))


def test_a_resumed_run_leaves_out_what_had_failed() -> None:
    failing = MemorySource([10, 10], failing=[0])
    first, *unbroken = stream(failing, max_shard_failures=1).batches(0, 10 // 7 * 7 + 7)
    assert first.place is not None
    assert first.place["failed"] == {"0": [0]}
    mended = MemorySource([10, 10])
    resumed = list(stream(mended, max_shard_failures=1).batches(7, 14, stored(first.place)))
    assert image_names(resumed)[:3] == image_names(unbroken)[:3]
    assert mended.reads[0] == 1


@pytest.mark.parametrize("cause", ["a shard has grown", "a shard fails"])
def test_a_shard_that_changed_since_the_checkpoint_is_refused(cause: str) -> None:
    first = next(stream(MemorySource([10, 10])).batches(0, 70))
    source = MemorySource([10, 11]) if cause == "a shard has grown" else MemorySource([10, 10], failing=[1])
    words = "there are 21 now" if cause == "a shard has grown" else "001.tar: the server answers 500; resume once"
    with pytest.raises(TrainingError, match=rf"among the 20 images of memory://set.*{words}"):
        list(stream(source, max_shard_failures=5).batches(7, 70, stored(first.place)))


def test_a_checkpoint_of_a_run_without_a_stream_is_refused() -> None:
    with pytest.raises(TrainingError, match="no place in a stream"):
        next(stream(MemorySource(SIZES)).batches(7, 70))


def of_this_stream() -> list[threading.Thread]:
    """Threads of streams that live."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("imtok")]


def test_closing_a_stream_ends_its_threads_in_mid_download() -> None:
    source = MemorySource([10] * 6, stalled=range(2, 6))
    order = stream(source, width=1).order
    source.stalled = {order.window(number).shards[0] for number in (1, 2)}
    batches = stream(source, width=1).batches(0, 70)
    next(batches)
    assert of_this_stream()
    started = time.perf_counter()
    batches.close()
    assert time.perf_counter() - started < 1
    assert not of_this_stream()


def test_a_request_to_stop_ends_the_wait_for_a_shard() -> None:
    stop = threading.Event()
    reader = stream(MemorySource([10, 10], stalled=[0, 1]), should_stop=stop.is_set)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Interrupted):
        next(reader.batches(0, 70))
    assert not of_this_stream()


def test_an_error_of_a_storage_is_raised_as_it_is() -> None:
    source = MemorySource(SIZES)
    source.sizes = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        next(stream(source).batches(0, 70))
    assert not of_this_stream()


def in_threads(
    source: MemorySource, ranks: int, seen: int, until: int, place: Any = None, **changes: Any
) -> list[list[Batch]]:
    """The batches of each rank, from one thread a rank."""
    exchange = LocalExchange(ranks)
    results: list[list[Batch]] = [[] for _ in range(ranks)]

    def work(rank: int) -> None:
        joint = JointBatch(8, 1, rank, ranks)
        results[rank] = list(stream(source, joint=joint, exchange=exchange, **changes).batches(seen, until, place))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def joined(batches: Sequence[Sequence[Batch]]) -> Counter[tuple[int, int]]:
    return Counter(name for rank in batches for name in image_names(rank))


def test_another_number_of_ranks_uses_each_image_once() -> None:
    source = MemorySource([13, 2, 9, 16, 5, 8, 1, 10], failing=[7])
    three = in_threads(source, 3, 0, 16, max_shard_failures=1)
    places = [rank[-1].place for rank in three]
    assert places[0] == places[1] == places[2]
    for ranks in (1, 2, 3, 4):
        rest = in_threads(source, ranks, 16, 120, stored(places[0]), max_shard_failures=1)
        assert [len(rank) for rank in rest] == [13] * ranks
        assert all(rest[0][step].place == rank[step].place for rank in rest for step in range(13))
        assert joined(three) + joined(rest) == expected_images(source, stream(source).order, rest[0][-1].place)


@pytest.mark.parametrize("sizes", [[5], [2, 1], [1, 1, 1]])
def test_ranks_share_epochs_of_few_windows(sizes: list[int]) -> None:
    source = MemorySource(sizes)
    batches = in_threads(source, 4, 0, 40)
    place = batches[0][-1].place
    assert joined(batches) == expected_images(source, stream(source).order, place)
    rest = in_threads(source, 2, 40, 80, stored(place))
    assert joined(batches) + joined(rest) == expected_images(source, stream(source).order, rest[0][-1].place)


def test_failed_shards_end_all_ranks_at_the_same_batch() -> None:
    source = MemorySource([6] * 8, failing=[2, 5])
    exchange, ends = LocalExchange(3), {}

    def work(rank: int) -> None:
        batches = stream(source, joint=JointBatch(6, 1, rank, 3), exchange=exchange, max_shard_failures=1)
        count = 0
        try:
            for _ in batches.batches(0, 600):
                count += 1
        except TrainingError as error:
            ends[rank] = count, str(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends[0] == ends[1] == ends[2]
    assert "2 shards have failed, and 1 may" in ends[0][1]
