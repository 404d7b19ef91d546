"""Lists of strings as two arrays."""

from __future__ import annotations

import pickle

import numpy as np

from imtok.packed_strings import GrowingStrings, PackedStrings

WORDS = ["a", "", "ü", "名前", *(f"word {number}" for number in range(10_000))]


def test_strings_come_back_one_by_one_and_all_together() -> None:
    packed = PackedStrings.pack(WORDS)
    assert list(packed) == WORDS
    assert [packed[index] for index in (0, 1, 3, 10_003)] == ["a", "", "名前", "word 9999"]


def test_some_strings_are_taken_in_any_order() -> None:
    packed = PackedStrings.pack(WORDS)
    for indices in ([3, 0, 2], [10_003, 0], list(range(5000, 2, -1)), []):
        taken = np.array(indices, np.int64)
        assert list(packed.take(taken)) == [WORDS[index] for index in indices]
        assert packed.encoded_at(taken) == [WORDS[index].encode() for index in indices]


def test_arrays_out_of_a_file_may_begin_anywhere() -> None:
    packed = PackedStrings.pack(WORDS)
    data = b"x" + packed.offsets.tobytes()
    shifted = np.frombuffer(data, np.int64, offset=1)
    assert not shifted.flags.aligned
    assert PackedStrings(packed.data, shifted)[3] == "名前"


def test_packed_strings_survive_pickling_after_use() -> None:
    packed = PackedStrings.pack(WORDS)
    assert packed[2] == "ü"
    assert list(pickle.loads(pickle.dumps(packed))) == WORDS


def test_growing_strings_can_be_cut() -> None:
    growing = GrowingStrings()
    for word in (b"one", b"two", b"three"):
        growing.add(word)
    growing.cut(1)
    assert (growing.encoded(0), len(growing)) == (b"one", 1)
    growing.add(b"four")
    assert list(growing.packed()) == ["one", "four"]
