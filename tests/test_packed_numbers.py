"""Whole numbers in the type that takes the least memory."""

from __future__ import annotations

import numpy as np

from imtok.packed_numbers import GrowingNumbers


def test_numbers_that_fit_take_four_bytes() -> None:
    numbers = GrowingNumbers("I")
    numbers.append(2**32 - 1)
    numbers.extend(np.array([0, 7]))
    assert numbers.packed().dtype == np.uint32
    assert numbers.packed().tolist() == [2**32 - 1, 0, 7]


def test_a_number_that_does_not_fit_widens_all() -> None:
    for code, number in (("I", 2**32), ("I", -1), ("i", 2**31), ("i", -(2**31) - 1)):
        appended, extended = GrowingNumbers(code), GrowingNumbers(code)
        for numbers in (appended, extended):
            numbers.append(5)
        appended.append(number)
        extended.extend(np.array([6, number]))
        assert appended.packed().dtype == extended.packed().dtype == np.int64
        assert appended.packed().tolist() == [5, number]
        assert extended.packed().tolist() == [5, 6, number]


def test_numbers_can_be_cut_and_go_on() -> None:
    numbers = GrowingNumbers("i")
    numbers.extend(np.arange(5))
    numbers.cut(2)
    numbers.append(-1)
    assert (len(numbers), numbers[2], numbers.packed().tolist()) == (3, -1, [0, 1, -1])
