"""The packed list of images that are files of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from making import fill

from imtok.data.containers import ImageFile, LostImage
from imtok.data.file_list import FileList, GrowingFileList, Place
from imtok.data.sources import find_sources
from imtok.errors import SourceError

HERE = Place("", "/in/")


def growing(*names: str) -> GrowingFileList:
    files = GrowingFileList()
    for size, name in enumerate(names):
        files.add(HERE, name, f"/in/{name}", size)
    return files


def test_images_are_made_from_place_key_and_size() -> None:
    files = GrowingFileList()
    files.add(Place("cats/", "/in/"), "a/x.jpg", "/in/a/x.jpg", 7)
    assert list(files.sorted()) == [ImageFile("cats/a/x.jpg", "/in/a/x.jpg", 7)]


def test_names_that_are_not_utf8_keep_their_address() -> None:
    name = os.fsdecode(b"\xff.jpg")
    files = growing("a.jpg", name, "z.jpg").sorted()
    assert files[0] == ImageFile("\\xff.jpg", f"/in/{name}", 1)
    assert [file.key for file in files] == ["\\xff.jpg", "a.jpg", "z.jpg"]


def test_runs_of_keys_in_order_are_joined_without_a_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    files = growing("c/1.jpg", "c/2.jpg", "a/1.jpg", "b/1.jpg", "b/2.jpg")
    monkeypatch.setattr("imtok.data.file_list.sorted", None, raising=False)
    found = files.sorted()
    assert [(file.key, file.size) for file in found] == [
        ("a/1.jpg", 2),
        ("b/1.jpg", 3),
        ("b/2.jpg", 4),
        ("c/1.jpg", 0),
        ("c/2.jpg", 1),
    ]


def test_runs_that_lie_in_each_other_are_sorted_by_bytes() -> None:
    names = ["b.jpg", "d.jpg", "a.jpg", "c.jpg", "ü.jpg", "Z.jpg"]
    files = growing(*names)
    lost = LostImage("bb.jpg", "/in/bb.jpg", "link to nothing", "")
    files.add_object(lost)
    found = files.sorted()
    assert [file.key for file in found] == sorted([*names, "bb.jpg"], key=str.encode)
    assert found[3] is lost


@pytest.mark.parametrize("names", [["a.jpg", "b.jpg"], ["a.jpg", "ü.jpg"], ["b.jpg", "a.jpg"]])
def test_files_of_a_folder_are_added_as_one_by_one(names: list[str]) -> None:
    whole, single = growing("x.jpg", "c/y.jpg"), growing("x.jpg", "c/y.jpg")
    sizes = [2**33, 7]
    whole.add_folder(HERE, "ü/" if "ü" in names[1] else "d/", names, sizes)
    for name, size in zip(names, sizes, strict=True):
        folder = "ü/" if "ü" in names[1] else "d/"
        single.add(HERE, f"{folder}{name}", f"/in/{folder}{name}", size)
    assert whole.sorted() == single.sorted()


def test_a_name_that_a_folder_has_twice_is_refused() -> None:
    files = GrowingFileList()
    files.add_folder(HERE, "a/", ["x.jpg", "x.jpg"], [1, 1])
    with pytest.raises(SourceError, match=r"both would have the key a/x\.jpg"):
        files.sorted()


def test_images_of_several_places_keep_their_addresses() -> None:
    files = GrowingFileList()
    for prefix in ("b", "a"):
        files.add_folder(Place(f"{prefix}/", f"/{prefix}/in/"), "c/", ["1.jpg", "2.jpg"], [1, 2])
        files.add_object(LostImage(f"{prefix}/z.jpg", f"/{prefix}/in/z.jpg", "link to nothing", ""))
    found = files.sorted()
    assert [image.address for image in found] == [
        f"/{prefix}/in/{name}" for prefix in "ab" for name in ("c/1.jpg", "c/2.jpg", "z.jpg")
    ]
    files = GrowingFileList()
    files.add(Place("b/", "/b/"), "1.jpg", "/b/1.jpg", 1)
    files.add(Place("a/", "/a/"), "1.jpg", "/a/1.jpg", 1)
    files.cut(1)
    files.add_folder(HERE, "", ["c.jpg"], [1])
    assert [image.address for image in files.sorted()] == ["/b/1.jpg", "/in/c.jpg"]


def test_two_images_of_one_key_are_refused() -> None:
    with pytest.raises(SourceError, match=r"^/in/a\.jpg and /in/a\.jpg: both would have the key a\.jpg"):
        growing("a.jpg", "b.jpg", "a.jpg").sorted()


def test_a_cut_list_goes_on_as_if_nothing_had_followed() -> None:
    files = growing("b.jpg", "c.jpg", "a.jpg")
    files.add_object(LostImage("z.jpg", "/in/z.jpg", "link to nothing", ""))
    assert [file.key for file in files.cut(1)] == ["z.jpg"]
    files.add(HERE, "d.jpg", "/in/d.jpg", 4)
    assert [(file.key, file.size) for file in files.sorted()] == [("b.jpg", 0), ("d.jpg", 4)]


def test_a_list_is_a_sequence() -> None:
    files = growing("a.jpg", "b.jpg", "c.jpg").sorted()
    assert [file.key for file in files[1:]] == ["b.jpg", "c.jpg"]
    assert files[-1].key == "c.jpg"
    with pytest.raises(IndexError):
        files[3]


def test_lists_are_equal_where_their_images_are() -> None:
    one, two = growing("a.jpg", "b.jpg").sorted(), growing("a.jpg", "b.jpg").sorted()
    assert one == two == list(one)
    assert one != growing("a.jpg", "c.jpg").sorted()
    assert one != growing("a.jpg").sorted()
    assert one != 2


def test_a_walk_meets_keys_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jpg", "a-b.jpg", "a/x.jpg", "a-b/x.jpg", "a/b/c.jpg", "a0.jpg", "ü/x.jpg", "\U0001f600.jpg"]
    fill(tmp_path, names)
    monkeypatch.setattr("imtok.data.file_list._joined", None)  # would be called for a second run
    found = find_sources([tmp_path]).files
    assert isinstance(found, FileList)
    assert [file.key for file in found] == sorted(names, key=str.encode)
