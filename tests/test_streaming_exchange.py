"""The exchange of windows' sizes between ranks, within one process and over a store."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch.distributed as dist

from imtok.data.streaming.exchange import Exchange, Fetched, LocalExchange, StoreExchange
from imtok.data.streaming.source import never
from imtok.errors import Interrupted, TrainingError


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
