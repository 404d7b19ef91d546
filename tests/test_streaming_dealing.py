"""Windows and their dealing: every image once, whatever the sizes, the ranks and the places where a run is stopped."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imtok.data.streaming.dealing import Dealing, Piece
from imtok.data.streaming.windows import WindowOrder, permutation
from imtok.errors import TrainingError

PER_EPOCH = 5


def used(
    dealing: Dealing, counts: Sequence[int], batches: int, size_of: Callable[[int], int]
) -> list[list[list[Piece]]]:
    """The pieces of each batch, by rank."""
    return [[list(dealing.turn(rank, size_of)) for rank in range(len(counts))] for _ in range(batches)]


def positions(batches: Sequence[Sequence[Sequence[Piece]]]) -> list[tuple[int, int]]:
    """All (window, position) that were used, in the order (batch, rank)."""
    return [
        (piece.window, position)
        for batch in batches
        for pieces in batch
        for piece in pieces
        for position in range(piece.start, piece.stop)
    ]


def stored(place: dict[str, Any]) -> dict[str, Any]:
    """A place as it comes back from a checkpoint."""
    again: dict[str, Any] = json.loads(json.dumps(place))
    return again


sizes_of_windows = st.lists(st.integers(0, 9), min_size=PER_EPOCH, max_size=PER_EPOCH).filter(
    lambda sizes: max(sizes) > 0
)
runs = st.lists(
    st.tuples(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 6)), min_size=1, max_size=5
)


@settings(deadline=None)
@given(sizes_of_windows, runs)
def test_every_image_is_used_once_over_changes_of_ranks(
    sizes: list[int], segments: list[tuple[list[int], int]]
) -> None:
    def size_of(window: int) -> int:
        return sizes[window % PER_EPOCH]

    place: dict[str, Any] | None = None
    seen: list[tuple[int, int]] = []
    for counts, steps in segments:
        dealing = Dealing(counts, PER_EPOCH, place)
        batches = used(dealing, counts, steps, size_of)
        assert [
            sum(piece.stop - piece.start for piece in pieces) for batch in batches for pieces in batch
        ] == counts * steps
        seen += positions(batches)
        place = stored(dealing.place())
    assert place is not None
    open_windows = {window: offset for held in [*place["ranks"], place["queue"]] for window, offset in held}
    expected = [
        (window, position)
        for window in range(place["next"])
        for position in range(open_windows.get(window, size_of(window)))
    ]
    assert sorted(seen) == expected


@settings(deadline=None)
@given(sizes_of_windows, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 8), runs)
def test_the_same_ranks_go_on_from_a_place_as_unbroken(
    sizes: list[int], counts: list[int], steps: int, before: list[tuple[list[int], int]]
) -> None:
    def size_of(window: int) -> int:
        return sizes[window % PER_EPOCH]

    place: dict[str, Any] | None = None
    for other_counts, other_steps in before:  # leaves windows in the queue of the place
        dealing = Dealing(other_counts, PER_EPOCH, place)
        used(dealing, other_counts, other_steps, size_of)
        place = stored(dealing.place())
    unbroken = Dealing(counts, PER_EPOCH, place)
    used(unbroken, counts, steps, size_of)
    resumed = Dealing(counts, PER_EPOCH, stored(unbroken.place()))
    assert used(unbroken, counts, 9, size_of) == used(resumed, counts, 9, size_of)
    assert unbroken.place() == resumed.place()


@settings(deadline=None)
@given(sizes_of_windows, st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 25))
def test_a_dealt_window_waits_for_one_window_of_its_rank(sizes: list[int], counts: list[int], steps: int) -> None:
    dealing = Dealing(counts, PER_EPOCH)
    owner: dict[int, int] = {}
    begun: dict[int, list[int]] = defaultdict(list)  # windows by rank
    for _ in range(steps):
        for rank in range(len(counts)):
            for piece in dealing.turn(rank, lambda window: sizes[window % PER_EPOCH]):
                assert owner.setdefault(piece.window, rank) == rank
                if begun[rank][-1:] != [piece.window]:
                    begun[rank].append(piece.window)
            held = [dealing.held(number) for number in range(len(counts))]
            assert all(len(windows) == 2 and windows[0] < windows[1] for windows in held)
            dealt = dealing.place()["next"]
            unfinished = {window for windows in held for window in windows}
            # All windows of the sequence so far have ended but two a rank, of which the first alone is begun.
            assert all(
                window in unfinished or window in owner or sizes[window % PER_EPOCH] == 0 for window in range(dealt)
            )
            assert not {windows[1] for windows in held} & set(owner)
    assert all(windows == sorted(windows) for windows in begun.values())


def test_the_next_window_goes_to_the_rank_that_ends_first() -> None:
    sizes = [2, 6, 6, 6, 6, 6, 6]
    dealing = Dealing([2, 2, 2], per_epoch=7)
    assert [dealing.held(rank) for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]
    used(dealing, [2, 2, 2], 1, sizes.__getitem__)
    assert [dealing.held(rank) for rank in range(3)] == [[3, 6], [1, 4], [2, 5]]
    used(dealing, [2, 2, 2], 2, sizes.__getitem__)  # ranks 1 and 2 end in one batch: the lower one comes first
    assert [dealing.held(rank) for rank in range(3)] == [[3, 6], [4, 7], [5, 8]]


def test_a_rank_asks_for_sizes_of_current_windows_alone() -> None:
    requested: list[int] = []

    def size_of(window: int) -> int:
        requested.append(window)
        return 4

    dealing = Dealing([1, 1], per_epoch=9)
    used(dealing, [1, 1], 4, size_of)
    assert requested == [0, 1]
    assert dealing.place()["ranks"] == [[[2, 0], [4, 0]], [[3, 0], [5, 0]]]


def test_windows_smaller_than_a_batch_are_used_up_in_one() -> None:
    dealing = Dealing([7], per_epoch=4)
    (((*pieces,),),) = used(dealing, [7], 1, [2, 0, 3, 9].__getitem__)
    assert pieces == [Piece(0, 0, 2), Piece(2, 0, 3), Piece(3, 0, 2)]
    assert dealing.place() == {"next": 5, "ranks": [[[3, 2], [4, 0]]], "queue": [], "sizes": {"3": 9}}


def test_windows_of_four_ranks_wait_in_the_queue_of_one() -> None:
    four = Dealing([1] * 4, per_epoch=20)
    used(four, [1] * 4, 3, lambda _: 5)
    one = Dealing([4], 20, stored(four.place()))
    assert one.held(0) == [0, 1]
    assert one.place()["queue"] == [[2, 3], [3, 3], [4, 0], [5, 0], [6, 0], [7, 0]]
    two = Dealing([2, 2], 20, stored(one.place()))
    assert [two.held(0), two.held(1)] == [[0, 2], [1, 3]]
    assert two.place()["queue"] == [[4, 0], [5, 0], [6, 0], [7, 0]]


def test_an_epoch_of_empty_windows_ends_the_run() -> None:
    dealing = Dealing([3, 3], per_epoch=4)
    with pytest.raises(TrainingError, match="no shard of a whole epoch could be read"):
        used(dealing, [3, 3], 100, lambda window: 5 if window < 4 else 0)
    assert dealing.place()["next"] <= 4 * 4


def test_windows_that_are_empty_now_and_then_do_not() -> None:
    dealing = Dealing([1], per_epoch=2)
    batches = used(dealing, [1], 10, lambda window: window % 4 in (0, 3))  # empty: 1, 2, then 5, 6
    assert [piece.window for ((piece,),) in batches][:4] == [0, 3, 4, 7]


@pytest.mark.parametrize(("shards", "width", "lengths"), [(7, 3, [3, 3, 1]), (4, 2, [2, 2]), (2, 5, [2]), (1, 1, [1])])
def test_an_epoch_of_windows_has_every_shard_once(shards: int, width: int, lengths: list[int]) -> None:
    order = WindowOrder(shards, width, seed=3)
    for epoch in range(3):
        windows = [order.window(epoch * len(lengths) + number) for number in range(len(lengths))]
        assert [(window.epoch, window.number, len(window.shards)) for window in windows] == [
            (epoch, number, length) for number, length in enumerate(lengths)
        ]
        assert sorted(shard for window in windows for shard in window.shards) == list(range(shards))


def test_epochs_and_seeds_have_other_orders_of_shards() -> None:
    orders = {WindowOrder(9, 9, seed).window(epoch).shards for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert WindowOrder(9, 9, 1).window(10**9) == WindowOrder(9, 9, 1).window(10**9)


def test_a_permutation_stays_what_it_was() -> None:
    assert permutation(8, (1, 2, 3)).tolist() == [1, 3, 7, 5, 2, 0, 4, 6]
