"""The inputs of a call, from which recorded ones are taken by name."""

from __future__ import annotations

from array import array

import pytest

from imtok.data.file_list import GrowingFileList, Place
from imtok.data.sources import ContainerFile
from imtok.encoding.inputs import PlanPart
from imtok.encoding.matching import Inputs
from imtok.tokens.plan import PlanEntry


def inputs(*names: str, tars: tuple[str, ...] = ()) -> Inputs:
    files = GrowingFileList()
    for size, name in enumerate(names):
        files.add(Place("", "/in/"), name, f"/in/{name}", size)
    return Inputs(PlanPart(files.sorted(), [ContainerFile(name, f"/in/{name}.tar", 9) for name in tars], 2))


NAMES = [f"{number:03d}.jpg" for number in range(40)]


@pytest.mark.parametrize(
    "recorded", [NAMES, NAMES[::-1], NAMES[::2], NAMES[::7], NAMES[20:] + NAMES[:20], ["039.jpg", "000.jpg"]]
)
def test_images_are_found_in_any_order(recorded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.encoding.matching._BLOCK", 3)
    found = inputs(*NAMES)
    positions = array("I", [found.take_image(name.encode()) or 0 for name in recorded])
    assert [image.key for image in found.images(positions)] == recorded
    assert [image.key for image in found.rest()[0]] == [name for name in NAMES if name not in recorded]
    assert [found.size(position) for position in positions] == [int(name[:3]) for name in recorded]


def test_an_image_is_taken_once() -> None:
    found = inputs("a.jpg", "b.jpg")
    assert found.take_image(b"b.jpg") == 1
    assert found.take_image(b"b.jpg") is None
    assert found.take_image(b"a.jp") is None
    assert found.take_image(b"c.jpg") is None
    assert found.images_left
    assert found.take_image(b"a.jpg") == 0
    assert not found.images_left
    assert inputs().take_image(b"a.jpg") is None


def test_a_search_backwards_finds_what_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.encoding.matching._BLOCK", 3)
    found = inputs(*NAMES)
    taken = [found.take_image(f"{number:03d}.jpg".encode()) for number in (20, 21, 5, 5, 20, 6, 30, 7, 22)]
    assert taken == [20, 21, 5, None, None, 6, 30, 7, 22]


def test_containers_are_taken_once_by_name() -> None:
    found = inputs(tars=("x", "y"))
    taken = found.take_container("x")
    assert taken is not None
    assert taken.name == "x"
    assert found.take_container("x") is None
    assert [file.name for file in found.rest()[1]] == ["y"]


def test_a_key_below_a_folder_is_explained() -> None:
    found = inputs("in/a.jpg", "in/b.jpg")
    assert found.longer(PlanEntry(unit=0, key="b.jpg", bytes=1)) == "in/b.jpg"
    assert found.longer(PlanEntry(unit=0, key="c.jpg", bytes=1)) is None
    assert found.longer(PlanEntry(unit=0, tar="b", bytes=1)) is None
