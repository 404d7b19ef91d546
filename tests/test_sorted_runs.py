"""The sort of pairs that are never all in memory as objects."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from imtok.sorted_runs import in_sorted_blocks


@pytest.mark.parametrize("order", ["sorted", "reversed", "random", "interleaved", "none", "equal"])
def test_pairs_come_in_their_order(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.sorted_runs._RUN", 16)
    monkeypatch.setattr("imtok.sorted_runs._BLOCK", 3)
    pairs = [(f"{number:03d}".encode(), number) for number in range(0 if order == "none" else 200)]
    if order == "reversed":
        pairs.reverse()
    elif order == "random":
        random.Random(0).shuffle(pairs)
    elif order == "interleaved":
        pairs = pairs[::2] + pairs[1::2]
    elif order == "equal":
        pairs = [(b"x", 0)] * 50
    assert [pair for block in in_sorted_blocks(iter(pairs)) for pair in block] == sorted(pairs)


def test_a_sort_takes_few_bytes_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.sorted_runs._RUN", 2**12)
    monkeypatch.setattr("imtok.sorted_runs._BLOCK", 2**6)
    count = 100_000

    def pairs() -> Iterator[tuple[str, int]]:
        for number in range(count):
            yield f"an-image-of-a-camera-{number * 7919 % count:08d}.jpg", -1

    tracemalloc.start()
    try:
        for block in in_sorted_blocks(pairs()):
            assert block
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * count  # as objects they would be 200
