"""The images of one folder all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from making import encoded, fill, picture

from imtok.data.containers import ImageFile
from imtok.data.kinds import FileKind, kind_of
from imtok.data.listing import Entry, Files, Listing
from imtok.data.plain_images import PlainImages, plain_images
from imtok.data.sources import find_sources


def plain(*entries: Entry, beginning: str = "/in/") -> PlainImages | None:
    (files,) = Listing("/in", entries)
    assert isinstance(files, Files)
    return plain_images(files, beginning, kind_of)


def file(name: str, size: int | None = None) -> Entry:
    return Entry(name, f"/in/{name}", "file", size)


def test_images_are_told_from_other_files_by_their_suffix() -> None:
    assert plain(file("b.JPG", 2), file("a.png")) == PlainImages(["a.png", "b.JPG"], [None, 2], [])
    found = plain(file("b.png", 2), file("a.txt", 1), file("c.tar", 3), file(".d.png", 4), file(".e", 5))
    assert found == PlainImages(["b.png"], [2], [2, 4])


@pytest.mark.parametrize("odd", ["unknown", "unknown.xyz", "dot."])
def test_files_that_may_be_images_are_opened(odd: str) -> None:
    assert plain(file("a.png", 1), file(odd, 1)) is None


def test_links_to_nothing_and_other_addresses_are_left() -> None:
    assert plain(file("a.png", 1), Entry("b.png", "/in/b.png", "other")) is None
    assert plain(Entry("a.png", "/elsewhere/a.png", "file", 1)) is None
    assert plain(file("a.png", 1), beginning="/other/") is None


@pytest.mark.parametrize("one_by_one", [False, True])
def test_both_ways_find_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_by_one: bool) -> None:
    names = ["b/2.png", "b/1.png", "a.png", "c.png", "ü/1.png", "ü/ü.png", "b-1/3.jpg"]
    fill(tmp_path / "in", names)
    for name in ("b/1.cls", "b/1.txt", ".hidden.png", "b/.DS_Store"):
        (tmp_path / "in" / name).write_text("7")
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/b/\xff.png")).write_bytes(encoded(picture(1)))
    monkeypatch.setattr("imtok.data.listing._PIECE", 2)
    if one_by_one:
        monkeypatch.setattr("imtok.data.scanning.plain_images", nothing)
    found = find_sources([tmp_path / "in"])
    assert [image.key for image in found.files] == sorted([*names, "b/\\xff.png"], key=str.encode)
    assert all(isinstance(image, ImageFile) and len(image.read()) == image.size for image in found.files)
    assert (found.ignored, found.texts) == (2, {".cls": 1})


def nothing(files: Files, beginning: str, kind_of: FileKind) -> None:
    """Stand in for `plain_images`, and find that each file has to be looked at."""
