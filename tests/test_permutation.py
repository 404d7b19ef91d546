"""Random permutations that are computed number by number."""

from __future__ import annotations

import numpy as np
import pytest

from imtok.permutation import Permutation

ORDER = [3, 9, 1, 4, 0, 8, 6, 2, 5, 7]  # of ten numbers by (0, 0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 16, 17, 255, 256, 257, 1000, 65537])
def test_every_number_occurs_once(count: int) -> None:
    assert sorted(Permutation(count, 7)(np.arange(count)).tolist()) == list(range(count))


def test_a_place_needs_no_other_place() -> None:
    permutation = Permutation(10**12, 3)
    numbers = np.array([0, 1, 999_999_999_999])
    together = permutation(numbers)
    assert [int(permutation(number)) for number in numbers] == together.tolist()
    assert len(set(together.tolist())) == 3
    assert int(together.max()) < 10**12


def test_the_order_is_the_same_for_ever() -> None:
    assert Permutation(10, 0, 0)(np.arange(10)).tolist() == ORDER


def test_each_seed_and_epoch_has_its_own_order() -> None:
    orders = {tuple(Permutation(50, seed, epoch)(np.arange(50)).tolist()) for seed in (0, 1) for epoch in range(5)}
    assert len(orders) == 10


@pytest.mark.parametrize("count", [6, 24])
def test_every_number_goes_to_every_place_equally_often(count: int) -> None:
    rounds = 1000
    places = np.stack([Permutation(count, seed)(np.arange(count)) for seed in range(rounds)])
    for number in range(count):
        expected = rounds / count
        counts = np.bincount(places[:, number], minlength=count)
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert statistic < count - 1 + 6 * (2 * (count - 1)) ** 0.5


def test_neighbours_are_parted() -> None:
    order = Permutation(100_000, 1)(np.arange(100_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("number", [-1, 10])
def test_a_number_outside_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 9"):
        Permutation(10)(number)
