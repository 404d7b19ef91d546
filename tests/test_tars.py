"""Tars: what lies where, and whether they are whole."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from making import encoded, picture, pictures_tar, write_tar

from imtok.data.containers import Container, is_unsafe
from imtok.data.labels import Labels
from imtok.data.tars import open_tar
from imtok.errors import SourceError


def opened(path: Path) -> Container:
    return open_tar(str(path))


def test_images_are_read_from_their_offsets(tmp_path: Path) -> None:
    names = ["b.jpg", "a.png", "deep/c.JPG", "d.e.f.webp"]
    index = opened(pictures_tar(tmp_path / "x.tar", names))
    assert index.problem is None
    assert [image.key for image in index.images] == names
    assert [image.read() for image in reversed(index.images)] == [encoded(picture(n)) for n in (3, 2, 1, 0)]


def test_names_lose_a_leading_dot_slash(tmp_path: Path) -> None:
    index = opened(pictures_tar(tmp_path / "x.tar", ["./a.jpg"]))
    assert [image.key for image in index.images] == ["a.jpg"]


def test_labels_are_the_cls_members_beside_the_images(tmp_path: Path) -> None:
    data = encoded(picture(0))
    members = [
        ("a.cls", b"7"),
        ("a.jpg", data),
        ("b.jpg", data),
        ("b.cls", b" 12\n"),
        ("c.jpg", data),
        ("d.jpg", data),
        ("d.cls", b"dog"),
        ("e.left.jpg", data),
        ("e.cls", b"3"),
        ("f.jpg", data),
        ("f.cls", b"9" * 30),
        ("g.jpg", data),
        ("g.cls", b"1" * 10_000),
    ]
    index = opened(write_tar(tmp_path / "x.tar", members))
    labels = Labels("cls")
    found = {image.key: labels.label(image, index) for image in index.images}
    assert found == {
        "a.jpg": 7,
        "b.jpg": 12,
        "c.jpg": None,
        "d.jpg": None,
        "e.left.jpg": 3,
        "f.jpg": None,
        "g.jpg": None,
    }


def test_hidden_and_other_members_are_no_images(tmp_path: Path) -> None:
    data = encoded(picture(0))
    index = opened(write_tar(tmp_path / "x.tar", [("a.jpg", data), ("a.txt", b"hi"), ("._a.jpg", b"mac")]))
    assert [image.key for image in index.images] == ["a.jpg"]


def test_a_tar_cut_anywhere_before_its_end_is_not_whole(tmp_path: Path) -> None:
    whole = pictures_tar(tmp_path / "x.tar", [f"{number}.png" for number in range(4)])
    data = whole.read_bytes()
    last = opened(whole).images[-1]
    # The archive ends with two blocks of zeros; the bytes after them only fill up the record.
    end = -(-(last.offset + last.size) // 512) * 512 + 1024
    cut = tmp_path / "cut.tar"
    for length in [*range(0, end, 256), end - 1]:
        cut.write_bytes(data[:length])
        assert opened(cut).problem, length
    cut.write_bytes(data[:end])
    assert opened(cut).problem is None


def test_a_cut_tar_still_tells_what_lies_before_the_cut(tmp_path: Path) -> None:
    whole = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png", "c.png"])
    index = opened(whole)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: index.images[2].offset + 10])
    found = opened(cut)
    assert found.problem == "cut short inside c.png"
    assert [(image.key, image.offset) for image in found.images] == [("a.png", 512), ("b.png", index.images[1].offset)]
    assert found.images[1].read() == encoded(picture(1))


def test_damage_between_members_is_seen(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png", "c.png"])
    header = opened(path).images[1].offset - 512
    data = bytearray(path.read_bytes())
    data[header : header + 512] = os.urandom(512)
    path.write_bytes(data)
    found = opened(path)
    assert found.problem
    assert "damaged" in found.problem
    assert [image.key for image in found.images] == ["a.png"]


@pytest.mark.parametrize("data", [b"", b"<html>", b"PK\x03\x04" + b"x" * 2000, bytes(100), b"\xff" * 4096])
def test_what_is_no_tar_has_a_problem_and_no_images(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    found = opened(path)
    assert found.problem
    assert found.images == ()


def test_a_compressed_tar_is_no_tar_here(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    assert "not an uncompressed tar" in str(opened(tmp_path / "x.tar").problem)


def test_an_empty_archive_is_whole_and_has_no_images(tmp_path: Path) -> None:
    found = opened(write_tar(tmp_path / "x.tar", []))
    assert found.problem is None
    assert found.images == ()


def test_a_missing_tar_is_no_damaged_tar(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.tar"):
        opened(tmp_path / "gone.tar")


def test_repeated_keys_are_named(tmp_path: Path) -> None:
    index = opened(
        pictures_tar(tmp_path / "x.tar", ["b.jpg", "a.jpg", "b.jpg", "./a.jpg", "c.jpg", "/d.jpg", "/d.jpg"])
    )
    assert index.duplicates == ("a.jpg", "b.jpg")


@pytest.mark.parametrize(
    ("name", "unsafe"),
    [("../x.jpg", True), ("a/../../x.jpg", True), ("/x.jpg", True), ("a/x..jpg", False), ("a..b/x.jpg", False)],
)
def test_names_that_would_leave_the_folder_are_unsafe(tmp_path: Path, name: str, unsafe: bool) -> None:
    index = opened(pictures_tar(tmp_path / "x.tar", [name]))
    assert is_unsafe(index.images[0].key) is unsafe


def test_links_and_folders_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    found = opened(tmp_path / "x.tar")
    assert found.images == ()
    assert found.problem is None


def test_a_tar_that_shrinks_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png"])
    index = opened(path)
    path.write_bytes(path.read_bytes()[: index.images[1].offset + 20])
    assert index.images[0].read() == encoded(picture(0))
    with pytest.raises(SourceError, match="20 of"):
        index.images[1].read()


def test_long_and_odd_names_are_kept(tmp_path: Path) -> None:
    names = ["x" * 150 + "/" + "y" * 120 + ".jpg", "名前 ünïcode.jpg"]
    index = opened(pictures_tar(tmp_path / "x.tar", names))
    assert [image.key for image in index.images] == names
