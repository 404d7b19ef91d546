"""Tars: what lies where, and whether they are whole."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from making import encoded, outcomes, picture, pictures_tar, write_tar

from imtok.data.archives.tars import open_tar
from imtok.data.containers import Container, is_unsafe
from imtok.data.labels.origin import Labels
from imtok.data.reading import Reading
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
    end = -(-(last.part.offset + last.size) // 512) * 512 + 1024
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
    cut.write_bytes(whole.read_bytes()[: index.images[2].part.offset + 10])
    found = opened(cut)
    assert found.problem == "cut short inside c.png"
    assert [(image.key, image.part.offset) for image in found.images] == [
        ("a.png", 512),
        ("b.png", index.images[1].part.offset),
    ]
    assert found.images[1].read() == encoded(picture(1))


def test_damage_between_members_is_seen(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png", "c.png"])
    header = opened(path).images[1].part.offset - 512
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


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(SourceError, match=r"compressed with gzip.*gunzip"):
        opened(tmp_path / "x.tar")
    assert "not an uncompressed tar" in str(open_tar(str(tmp_path / "x.tar"), Reading(rules=1)).problem)


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


def special_tar(path: Path, members: Iterable[tuple[str, bytes, bytes | str]]) -> Path:
    """A tar of (name, type, content), where the content of a link is its target."""
    with tarfile.open(path, "w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(content, str):
                info.linkname, content = content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


FILE, HARD, SOFT, FOLDER = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


def test_links_are_resolved_within_the_tar(tmp_path: Path) -> None:
    members = [
        ("early.jpg", SOFT, "data/b.jpg"),
        ("a.jpg", FILE, b"A"),
        ("hard.jpg", HARD, "a.jpg"),
        ("data", FOLDER, b""),
        ("data/b.jpg", FILE, b"B"),
        ("data/up.jpg", SOFT, "../././a.jpg"),
        ("also", SOFT, "data"),
        ("through.jpg", SOFT, "also/b.jpg"),
        ("chain.jpg", SOFT, "hard.jpg"),
        ("hash.jpg", SOFT, "objects/1f2e"),
        ("objects/1f2e", FILE, b"no name"),
        ("later.jpg", HARD, "last.jpg"),
        ("last.jpg", FILE, b"L"),
    ]
    found = opened(special_tar(tmp_path / "x.tar", members))
    assert outcomes(found) == {
        "early.jpg": b"B",
        "a.jpg": b"A",
        "hard.jpg": b"A",
        "data/b.jpg": b"B",
        "data/up.jpg": b"A",
        "through.jpg": b"B",
        "chain.jpg": b"A",
        "hash.jpg": b"no name",
        "later.jpg": b"L",
        "last.jpg": b"L",
    }


def test_images_that_cannot_be_had_have_reasons(tmp_path: Path) -> None:
    members = [
        ("nothing.jpg", SOFT, "gone.jpg"),
        ("hard.jpg", HARD, "gone.jpg"),
        ("out.jpg", SOFT, "../x.jpg"),
        ("absolute.jpg", SOFT, "/etc/passwd"),
        ("one.jpg", SOFT, "two.jpg"),
        ("two.jpg", SOFT, "one.jpg"),
        ("folder.jpg", FOLDER, b""),
        ("pipe.jpg", tarfile.FIFOTYPE, b""),
        ("device.jpg", tarfile.CHRTYPE, b""),
    ]
    found = opened(special_tar(tmp_path / "x.tar", members))
    assert found.problem is None
    assert outcomes(found) == {
        "nothing.jpg": "link to nothing",
        "hard.jpg": "link to nothing",
        "out.jpg": "link out of the archive",
        "absolute.jpg": "link out of the archive",
        "one.jpg": "link in a loop",
        "two.jpg": "link in a loop",
        "pipe.jpg": "not a file",
        "device.jpg": "not a file",
    }


def test_links_take_the_member_that_unpacking_would(tmp_path: Path) -> None:
    members = [
        ("a.bin", FILE, b"1"),
        ("hard.jpg", HARD, "a.bin"),
        ("soft.jpg", SOFT, "a.bin"),
        ("a.bin", FILE, b"2"),
    ]
    found = opened(special_tar(tmp_path / "x.tar", members))
    assert outcomes(found) == {"hard.jpg": b"1", "soft.jpg": b"2"}


def test_a_file_added_twice_is_one_image(tmp_path: Path) -> None:
    found = opened(special_tar(tmp_path / "x.tar", [("a.jpg", FILE, b"A"), ("a.jpg", HARD, "./a.jpg")]))
    assert [image.key for image in found.images] == ["a.jpg"]


def test_labels_may_be_links(tmp_path: Path) -> None:
    members = [("a.jpg", FILE, b"A"), ("a.cls", FILE, b"7"), ("b.jpg", FILE, b"B"), ("b.CLS", HARD, "a.cls")]
    found = opened(special_tar(tmp_path / "x.tar", members))
    assert [image.beside(".cls") for image in found.images] == [b"7", b"7"]


def test_rules_1_pass_over_links_and_second_archives(tmp_path: Path) -> None:
    path = special_tar(tmp_path / "x.tar", [("a.jpg", FILE, b"A"), ("b.jpg", HARD, "a.jpg"), ("c", FILE, PNG)])
    path.write_bytes(path.read_bytes() + path.read_bytes())
    found = open_tar(str(path), Reading(rules=1))
    assert (outcomes(found), found.problem, found.notes) == ({"a.jpg": b"A"}, None, ())


SPARSE_MAP = b"1\n1024\n4\n"
SPARSE = {
    "0.0": ([("GNU.sparse.numblocks", "1"), ("GNU.sparse.offset", "1024"), ("GNU.sparse.numbytes", "4")], b""),
    "0.1": ([("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "1024,4")], b""),
    "1.0": ([("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s.jpg")], SPARSE_MAP),
}


@pytest.mark.parametrize("version", ["old", *SPARSE])
@pytest.mark.parametrize("claimed", [1028, 2**40])
def test_sparse_members_are_read_with_their_zeros(tmp_path: Path, version: str, claimed: int) -> None:
    header = tarfile.TarInfo("s.jpg")
    if version == "old":
        header.type, header.size = tarfile.GNUTYPE_SPARSE, 4
        block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        block[386:410] = b"%011o\0%011o\0" % (1024, 4)
        block[483:495] = bytes([128, *claimed.to_bytes(11, "big")])
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = bytes(block) + b"DATA".ljust(512, b"\0")
    else:
        fields, head = SPARSE[version]
        size = "GNU.sparse.realsize" if version == "1.0" else "GNU.sparse.size"
        records = b"".join(_record(*field) for field in [*fields, (size, str(claimed))])
        extra = tarfile.TarInfo("PaxHeader")
        extra.type, extra.size = tarfile.XHDTYPE, len(records)
        stored = head.ljust(512, b"\0") + b"DATA" if head else b"DATA"
        header.size = len(stored)
        data = extra.tobuf() + _padded(records) + header.tobuf() + _padded(stored)
    plain = pictures_tar(tmp_path / "y.tar", ["a.jpg"]).read_bytes()
    (tmp_path / "x.tar").write_bytes(data + plain)
    found = opened(tmp_path / "x.tar")
    sparse = "too large" if claimed > 1028 else bytes(1024) + b"DATA"
    assert outcomes(found) == {"s.jpg": sparse, "a.jpg": encoded(picture(0))}
    assert found.problem is None


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n"
    length = next(n for n in range(len(text), len(text) + 9) if n == len(f"{n}{text}"))
    return f"{length}{text}".encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def test_tars_behind_each_other_are_all_read(tmp_path: Path) -> None:
    parts = [pictures_tar(tmp_path / f"{name}.tar", [f"{name}.png"]).read_bytes() for name in "abc"]
    (tmp_path / "x.tar").write_bytes(b"".join(parts) + bytes(5000))
    found = opened(tmp_path / "x.tar")
    assert found.problem is None
    assert outcomes(found) == {f"{name}.png": encoded(picture(0)) for name in "abc"}


def test_junk_behind_the_end_is_a_problem(tmp_path: Path) -> None:
    whole = pictures_tar(tmp_path / "a.tar", ["a.png"]).read_bytes()
    for rest in (b"junk", b"x" * 600, whole[:300]):
        (tmp_path / "x.tar").write_bytes(whole + rest)
        found = opened(tmp_path / "x.tar")
        assert f"more data behind the end of the archive, at byte {len(whole)}" in str(found.problem)
        assert [image.key for image in found.images] == ["a.png"]
    (tmp_path / "x.tar").write_bytes(whole + whole[:700])
    assert "cut short" in str(opened(tmp_path / "x.tar").problem)


def test_a_negative_size_ends_in_a_problem(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png"])
    header = tarfile.TarInfo("b.png")
    block = bytearray(header.tobuf())
    block[124:136] = (-1024).to_bytes(12, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(path.read_bytes()[:1024] + bytes(block) + bytes(1024))
    assert opened(path).problem


def test_archives_inside_and_hidden_images_are_noted(tmp_path: Path) -> None:
    names = ["in/shard.tar", "table.parquet", "more.tar.gz", "._a.jpg", "__MACOSX/b.jpg"]
    found = opened(write_tar(tmp_path / "x.tar", [(name, b"x") for name in names]))
    assert found.images == ()
    assert "3 archives or Parquet files inside, first in/shard.tar" in found.notes[0]
    assert "2 hidden images inside, first ._a.jpg" in found.notes[1]


PNG = b"\x89PNG\r\n\x1a\n"


def test_members_without_a_suffix_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    members = [("photo", PNG), ("x.jpg_large", PNG), ("notes", b"text"), ("x.npy", PNG), ("._photo", PNG)]
    found = opened(write_tar(tmp_path / "x.tar", members))
    assert [image.key for image in found.images] == ["photo", "x.jpg_large"]


def test_names_beyond_utf8_are_spelled_out(tmp_path: Path) -> None:
    found = opened(write_tar(tmp_path / "x.tar", [(os.fsdecode(b"caf\xe9.png"), b"x")]))
    assert [image.key for image in found.images] == ["caf\\xe9.png"]


def test_a_file_that_describes_all_images_can_be_read(tmp_path: Path) -> None:
    found = opened(write_tar(tmp_path / "x.tar", [("a.jpg", b"A"), ("dataset.json", b"{}"), ("in/dataset.json", b"")]))
    assert {name: read() for name, read in found.files.items()} == {"dataset.json": b"{}"}


def test_a_tar_that_shrinks_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png"])
    index = opened(path)
    path.write_bytes(path.read_bytes()[: index.images[1].part.offset + 20])
    assert index.images[0].read() == encoded(picture(0))
    with pytest.raises(SourceError, match="20 of"):
        index.images[1].read()


def test_long_and_odd_names_are_kept(tmp_path: Path) -> None:
    names = ["x" * 150 + "/" + "y" * 120 + ".jpg", "名前 ünïcode.jpg"]
    index = opened(pictures_tar(tmp_path / "x.tar", names))
    assert [image.key for image in index.images] == names
