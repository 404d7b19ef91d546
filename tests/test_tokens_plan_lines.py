"""Lines of a plan that are written without a record for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imtok.data.containers import ImageFile
from imtok.data.file_list import GrowingFileList, Place
from imtok.data.sources import ContainerFile
from imtok.encoding.inputs import PlanPart
from imtok.tokens.json_lines import to_line
from imtok.tokens.plan import PlanEntry
from imtok.tokens.plan_lines import image_lines, image_row

ODD = [
    "a\n.jpg",
    "\u2028.jpg",
    'quo"te.jpg',
    "back\\slash.jpg",
    "名前.jpg",
    "\x7f\x00\x1f\b\f\r\t.jpg",
    "%d\U0001f600",
    "",
]
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(ODD)
blocks = st.lists(st.lists(st.tuples(keys, st.integers(-1, 2**63)), max_size=9), max_size=4)


@given(blocks, st.integers(1, 5), st.integers(0, 3))
def test_lines_are_those_of_the_records(parts: list[list[tuple[str, int]]], unit_size: int, first_unit: int) -> None:
    packed = [([key.encode() for key, _ in part], [size for _, size in part]) for part in parts]
    images = [image for part in parts for image in part]
    records = [
        PlanEntry(unit=first_unit + position // unit_size, key=key, bytes=size)
        for position, (key, size) in enumerate(images)
    ]
    lines = b"".join(image_lines(packed, unit_size, first_unit))
    assert lines == b"".join(to_line(record, exclude_none=True) for record in records)


def test_the_plan_of_a_list_and_containers_keeps_its_bytes() -> None:
    found = GrowingFileList()
    for number, name in enumerate(["b/ü.jpg", 'a/quo"te.png', "a/1.png"]):
        found.add(Place("", "/in/"), name, f"/in/{name}", 1000 + number)
    part = PlanPart(found.sorted(), [ContainerFile("x", "/in/x.tar", 10240)], unit_size=2, first_unit=3)
    expected = (
        '{"unit":3,"key":"a/1.png","bytes":1002}\n{"unit":3,"key":"a/quo\\"te.png","bytes":1001}\n'
        '{"unit":4,"key":"b/ü.jpg","bytes":1000}\n{"unit":5,"tar":"x","bytes":10240}\n'
    )
    assert b"".join(part.lines()).decode() == expected
    assert part.entries_hash == "ddd3124e9315ebc5a938c66a4339333a0bb16429463432731773a1d5bedefd09"


def test_images_that_are_objects_have_the_same_lines() -> None:
    images = [ImageFile("a.png", "/in/a.png", 5), ImageFile("b.png", "/in/b.png", -1)]
    assert b"".join(PlanPart(images, [], 1).lines()) == (
        b'{"unit":0,"key":"a.png","bytes":5}\n{"unit":1,"key":"b.png","bytes":-1}\n'
    )


@given(st.lists(st.tuples(st.integers(0, 9), keys, st.integers(-1, 2**63))))
def test_rows_are_what_the_records_of_lines_hold(entries: list[tuple[int, str, int]]) -> None:
    for unit, key, size in entries:
        line = to_line(PlanEntry(unit=unit, key=key, bytes=size), exclude_none=True)
        plain = not set(key) & {'"', "\\", *map(chr, range(32))}
        assert image_row(line) == ((unit, key.encode(), size) if plain else None)


@pytest.mark.parametrize(
    "line",
    [
        b'{"unit":1,"tar":"a","bytes":5}\n',
        b'{"unit":01,"key":"a","bytes":5}\n',
        b'{"unit":1,"key":"a","bytes":5}',
        b'{"unit":1,"key":"a","bytes":5,"x":1}\n',
        b'{"unit":1,"key":"\xff","bytes":5}\n',
        b'{"unit":1,"key":"a\x1f","bytes":5}\n',
        b'{"unit": 1,"key":"a","bytes":5}\n',
        b"",
    ],
)
def test_other_lines_are_left_to_their_record(line: bytes) -> None:
    assert image_row(line) is None
