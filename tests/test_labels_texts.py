"""Class numbers and names as they are written."""

from __future__ import annotations

import pytest

from imtok.data.labels.texts import as_label, read_cls, read_dataset_json, read_fields


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"7", 7),
        (b" 7\r\n", 7),
        (b"3.0", 3),
        (b"\xef\xbb\xbf7", 7),
        ("cat\r\n".encode("utf-16"), "cat"),
        ("Ärger".encode(), "Ärger"),
        (b"tench, Tinca tinca", "tench, Tinca tinca"),
        (b"", None),
        (b"3.5", None),
        (b"-1", None),
        (b"nan", None),
        (str(2**63).encode(), None),
        (str(2**63 - 1).encode(), 2**63 - 1),
        (b"\xff\x00\x80", None),
        (b"a\nb", None),
        (b"x" * 500, None),
        (None, None),
    ],
)
def test_texts_of_cls_are_read(data: bytes | None, label: int | str | None) -> None:
    assert read_cls(data) == label


def test_values_of_other_types_are_no_labels() -> None:
    assert [as_label(value) for value in (True, None, [1], {}, float("inf"), 4.0)] == [None] * 5 + [4]


def test_fields_come_in_their_order() -> None:
    found = read_fields(b'{"caption": "a cat", "label": "cat", "class_id": 3, "class_name": null}')
    assert list(found.items()) == [("class_id", 3), ("label", "cat")]
    assert read_fields(b"[1]") == read_fields(b"{") == {}


def test_dataset_json_may_be_a_list_or_a_mapping() -> None:
    expected = {"a/x.png": 6}
    assert read_dataset_json(b'{"labels": [["a/x.png", 6], ["b.png", null]]}') == expected
    assert read_dataset_json(b'{"labels": {"a/x.png": 6.0}}') == expected
    assert read_dataset_json(b'{"other": 1}') is None


@pytest.mark.parametrize("labels", ['[["x.png", [0, 1]]]', '["x.png"]', '[["x.png", 1, 2]]'])
def test_labels_of_another_form_are_refused(labels: str) -> None:
    with pytest.raises(ValueError, match="its labels are"):
        read_dataset_json(f'{{"labels": {labels}}}'.encode())
