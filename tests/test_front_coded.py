"""Strings whose neighbours begin alike."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from imtok.front_coded import GrowingFrontCoded

WORDS = [b"", b"a", "ü".encode(), *(b"n%05d/%04d.jpg" % (number // 50, number) for number in range(300)), b"z" * 99]


def grown(*, at_once: bool) -> GrowingFrontCoded:
    growing = GrowingFrontCoded()
    if at_once:
        growing.extend(WORDS[:100])
        growing.extend(WORDS[100:])
    for word in () if at_once else WORDS:
        growing.add(word)
    return growing


@pytest.mark.parametrize("at_once", [False, True])
def test_strings_come_back_as_they_were(at_once: bool) -> None:
    packed = grown(at_once=at_once).packed()
    assert list(packed) == [word.decode() for word in WORDS]
    assert [packed.encoded(index) for index in range(len(packed))] == WORDS
    assert packed.encoded_at(np.array([303, 2, 150])) == [WORDS[303], WORDS[2], WORDS[150]]
    assert packed.encoded_at(np.array([], np.int64)) == []
    assert list(pickle.loads(pickle.dumps(packed))) == list(packed)
    assert len(packed.data) < sum(map(len, WORDS)) - 64 * len("n00000")


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 200, 304])
def test_strings_can_be_cut_anywhere(count: int) -> None:
    growing = grown(at_once=True)
    growing.cut(count)
    growing.add(b"next")
    assert (len(growing), growing.encoded(count)) == (count + 1, b"next")
    assert list(growing.packed()) == [word.decode() for word in [*WORDS[:count], b"next"]]
