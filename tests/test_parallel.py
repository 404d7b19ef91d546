"""Work on threads, with results in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from imtok.errors import Interrupted
from imtok.parallel import NothingYet, in_order


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("imtok")]


def test_results_come_in_order_whoever_is_first() -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.01 if number % 2 == 0 else 0)
        return number

    assert list(in_order(slow_if_even, range(20), workers=4, ahead=8)) == list(range(20))


def test_no_more_items_are_taken_than_are_allowed_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    with closing(in_order(lambda number: number, items(), workers=2, ahead=3)) as results:
        for expected in range(10):
            assert next(results) == expected
            assert taken <= expected + 4
    assert taken < 100


def test_an_error_ends_the_work_and_leaves_no_thread() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        return number

    results = in_order(fail, range(100), workers=2, ahead=4)
    with pytest.raises(KeyError), closing(results):
        list(results)
    assert threads() == []


def test_a_request_to_stop_is_seen_while_waiting() -> None:
    request = threading.Event()
    release = threading.Event()
    threading.Timer(0.05, request.set).start()
    threading.Timer(0.3, release.set).start()
    results = in_order(lambda _: release.wait(5), range(4), workers=1, ahead=1, should_stop=request.is_set)
    with pytest.raises(Interrupted), closing(results):
        list(results)
    assert threads() == []


def test_each_thread_computes_on_one_core() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        counts = set(in_order(lambda _: torch.get_num_threads(), range(8), workers=3, ahead=3))
        assert counts == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_caller_keeps_its_cores_where_threads_only_read() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with closing(in_order(str, range(8), workers=3, ahead=3, one_core=False)) as results:
            assert next(results) == "0"
            assert torch.get_num_threads() == 2
            assert list(results) == list("1234567")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_closed_queue_drops_what_no_thread_has_begun() -> None:
    begun: list[int] = []
    release = threading.Event()

    def wait(number: int) -> int:
        begun.append(number)
        if number:
            release.wait(5)
        return number

    results = in_order(wait, range(100), workers=1, ahead=10, one_core=False)
    assert next(results) == 0
    threading.Timer(0.1, release.set).start()
    results.close()
    assert len(begun) <= 2
    assert threads() == []


def test_results_come_out_while_the_next_item_is_waited_for() -> None:
    given: list[int] = []

    def items() -> Iterator[int | NothingYet]:
        yield 1
        while not given:  # an item that comes after the result of the first one
            yield NothingYet()
        yield 2

    for result in in_order(lambda item: 10 * item, items(), workers=1, ahead=5):
        given.append(result)
    assert given == [10, 20]
