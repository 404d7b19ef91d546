"""Ids of images: where the codes stand, what is added to them, and what stands around them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from imtok.errors import ConfigError, TokensError
from imtok.export.options import ExportOptions
from imtok.export.sequences import SequenceLayout

CODES = np.array([[[[0, 1, 2], [3, 4, 5]]]], np.uint8)  # (1, 1, 2, 3)
BOOKS = np.array([[[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]], np.uint8)  # (1, 1, 2, 2, 2)


def ids(codes: np.ndarray, options: ExportOptions, size: int = 10, label: int = 0) -> list[int]:
    layout = SequenceLayout(codes.shape[2:4], codes.shape[4] if codes.ndim == 5 else 1, size, options, classes=3)
    found = layout.ids(codes, np.array([label]), np.dtype("<u2"))
    assert found.shape == (1, 1, layout.length)
    assert int(found.max()) < layout.num_ids
    return found[0, 0].tolist()


def test_ids_are_the_codes_row_by_row() -> None:
    assert ids(CODES, ExportOptions()) == [0, 1, 2, 3, 4, 5]


def test_special_ids_stand_around_rows_and_image() -> None:
    options = ExportOptions(boi=50, eoi=51, eol=52, eod=53)
    assert ids(CODES, options) == [50, 0, 1, 2, 52, 3, 4, 5, 52, 51, 53]


def test_offset_is_added_to_codes_alone() -> None:
    assert ids(CODES, ExportOptions(offset=100, boi=1)) == [1, 100, 101, 102, 103, 104, 105]


@pytest.mark.parametrize(
    ("place", "expected"),
    [("before", [12, 50, 0, 1, 2, 3, 4, 5, 51, 53]), ("after", [50, 0, 1, 2, 3, 4, 5, 51, 12, 53])],
)
def test_class_ids_follow_those_of_codes(place: str, expected: list[int]) -> None:
    options = ExportOptions.model_validate({"boi": 50, "eoi": 51, "eod": 53, "label": place})
    assert ids(CODES, options, label=2) == expected


def test_class_ids_begin_where_the_option_says() -> None:
    assert ids(CODES, ExportOptions(label="before", label_offset=1000), label=1)[0] == 1001


@pytest.mark.parametrize(
    ("order", "offsets", "expected"),
    [
        ("interleaved", False, [0, 1, 2, 3, 99, 4, 5, 6, 7, 99]),
        ("interleaved", True, [0, 11, 2, 13, 99, 4, 15, 6, 17, 99]),
        ("concatenated", False, [0, 2, 99, 4, 6, 99, 1, 3, 99, 5, 7, 99]),
        ("concatenated", True, [0, 2, 99, 4, 6, 99, 11, 13, 99, 15, 17, 99]),
    ],
)
def test_codebooks_are_interleaved_or_concatenated(order: str, offsets: bool, expected: list[int]) -> None:
    options = ExportOptions.model_validate({"order": order, "codebook_offsets": offsets, "eol": 99})
    assert ids(BOOKS, options) == expected


@pytest.mark.parametrize(("grid", "books", "crops"), [((2, 3), 1, 1), ((1, 5), 1, 2), ((2, 2), 3, 1), ((3, 2), 2, 10)])
def test_codes_come_back_from_any_layout(grid: tuple[int, int], books: int, crops: int) -> None:
    draws = np.random.default_rng(0)
    codes = draws.integers(0, 300, (4, crops, *grid, *([books] if books > 1 else []))).astype(np.uint16)
    labels = draws.integers(0, 7, 4)
    choices = itertools.product(("interleaved", "concatenated"), (False, True), ("none", "before", "after"), (0, 5))
    for order, offsets, place, offset in choices:
        for special in ({}, {"boi": 5000}, {"eol": 5001, "eod": 5002}, {"boi": 1, "eoi": 2, "eol": 3, "eod": 4}):
            values = {"order": order, "codebook_offsets": offsets, "label": place, "offset": offset, **special}
            layout = SequenceLayout(grid, books, 300, ExportOptions.model_validate(values), classes=7)
            found = layout.ids(codes, labels, np.dtype("<i4"))
            assert int(found.max()) < layout.num_ids
            back, classes = layout.codes(found)
            np.testing.assert_array_equal(back.reshape(codes.shape), codes)
            assert (classes is None) == (place == "none")
            if classes is not None:
                np.testing.assert_array_equal(classes, np.repeat(labels[:, None], crops, 1))


def test_ids_equal_to_codes_are_not_copied() -> None:
    codes = CODES.astype(np.uint16)
    layout = SequenceLayout((2, 3), 1, 1000, ExportOptions())
    assert np.shares_memory(layout.ids(codes, None, np.dtype("<u2")), codes)


def test_another_special_id_is_named() -> None:
    layout = SequenceLayout((2, 3), 1, 10, ExportOptions(eol=77))
    found = layout.ids(CODES, None, np.dtype("<u2"))
    found[0, 0, 3] = 78
    with pytest.raises(TokensError, match="an id is 78, expected 77"):
        layout.codes(found)


@pytest.mark.parametrize("option", ["boi", "eoi", "eol", "eod"])
def test_a_special_id_within_those_of_codes_is_refused(option: str) -> None:
    options = ExportOptions.model_validate({"offset": 4, option: 13})
    with pytest.raises(ConfigError, match=rf"--{option} 13: ids of codes span \[4, 14\)"):
        SequenceLayout((2, 3), 1, 10, options).check()


def test_a_special_id_within_those_of_classes_is_refused() -> None:
    options = ExportOptions(boi=10, label="before")
    with pytest.raises(ConfigError, match=r"--boi 10: ids of classes span \[10, 13\).*--label-offset"):
        SequenceLayout((2, 3), 1, 10, options, classes=3).check()


def test_class_ids_within_those_of_codes_are_refused() -> None:
    options = ExportOptions(label="before", label_offset=8)
    with pytest.raises(ConfigError, match="give --label-offset 10 or above"):
        SequenceLayout((2, 3), 1, 10, options, classes=3).check()
