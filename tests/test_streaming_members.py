"""Shards read in order give what the same tars give by their index: keys, bytes, and images that are lost."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import encoded, picture

from imtok.data.archives.tars import open_tar
from imtok.data.reading import DEFAULT_READING
from imtok.data.streaming.members import DamagedShard, read_members
from imtok.errors import ImageError

PNG = encoded(picture(1, 8, 8))
NAMES = [
    *("a.png", "./b.jpg", "c.PNG", "d.1.jpg", "d.2.jpg", "no-suffix", ".hidden.png", "__MACOSX/a.png", "x/y.jpeg"),
    *(
        "__train__/a.png",
        "__img__",
        "__meta__",
        "n" * 120 + ".png",
        "é/ü.png",
        "\udcff.png",
        "/absolute.png",
        "../up.png",
    ),
    *("a.json", "a.cls", "inner.tar", "empty.png", "text.txt", "dataset.json"),
]
KINDS = ["file", "text", "symlink", "hard link", "folder", "device", "sparse"]


def add(tar: tarfile.TarFile, kind: str, name: str, target: str) -> None:
    """Add one member of a kind."""
    info = tarfile.TarInfo(name)
    data = {"file": PNG + name.encode("utf-8", "surrogateescape"), "text": b"words"}.get(kind, b"")
    if kind in ("symlink", "hard link"):
        info.type, info.linkname = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}[kind], target
    elif kind in ("folder", "device"):
        info.type = {"folder": tarfile.DIRTYPE, "device": tarfile.CHRTYPE}[kind]
    elif kind == "sparse":  # of pax's version 1.0: the map stands before the data
        where = f"1\n0\n{len(PNG)}\n".encode()
        data = where.ljust(512, b"\0") + PNG
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name.encode("utf-8", "replace").decode(),
            "GNU.sparse.realsize": str(len(PNG) + 1000),
        }
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def tar_of(members: list[tuple[str, str, str]], tar_format: int) -> bytes:
    """Make a tar of members: kinds, names, and targets of links."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape") as tar:
        for kind, name, target in members:
            add(tar, "file" if kind == "sparse" and tar_format == tarfile.GNU_FORMAT else kind, name, target)
    return file.getvalue()


def assert_alike(data: bytes, path: Path) -> None:
    """Compare a shard read in order with the same tar read by its index."""
    path.write_bytes(data)
    indexed = open_tar(str(path))
    assert indexed.problem is None
    streamed = read_members(io.BytesIO(data), len(data), DEFAULT_READING)
    by_index, lost = [], {}
    for image in indexed.images:
        try:
            by_index.append((image.key, image.read()))
        except ImageError as error:
            lost[image.key] = str(error)
    assert streamed.images == by_index
    assert streamed.lost == lost
    assert streamed.notes == indexed.notes


_MEMBER = st.tuples(st.sampled_from(KINDS), st.sampled_from(NAMES), st.sampled_from(NAMES))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_MEMBER, min_size=1, max_size=8), st.lists(_MEMBER, max_size=3), st.booleans())
def test_odd_tars_give_what_their_index_gives(
    tmp_path: Path, members: list[tuple[str, str, str]], more: list[tuple[str, str, str]], pax: bool
) -> None:
    tar_format = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    data = tar_of(members, tar_format)
    if more:  # as `cat` makes it
        data += tar_of(more, tar_format)
    assert_alike(data, tmp_path / "odd.tar")


def test_each_kind_of_member_comes_out_or_is_named() -> None:
    members = [("file", "a.png", ""), ("symlink", "s.png", "a.png"), ("hard link", "h.png", "a.png")]
    members += [("symlink", "gone.png", "nothing"), ("device", "dev.png", ""), ("sparse", "zeros.png", "")]
    members += [("file", "__train__/t.png", ""), ("file", "__img__", ""), ("file", "a.png", "")]
    found = read_members(io.BytesIO(data := tar_of(members, tarfile.PAX_FORMAT)), len(data), DEFAULT_READING)
    keys = ["a.png", "s.png", "h.png", "zeros.png", "__train__/t.png", "__img__", "a.png"]
    assert [key for key, _ in found.images] == keys
    assert found.images[3][1] == PNG + bytes(1000)
    assert found.lost == {"gone.png": "link to nothing: nothing", "dev.png": "not a file: a character device"}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12_287))
def test_a_shard_cut_anywhere_is_no_whole_one(place: int) -> None:
    data = tar_of([("file", f"{number}.png", "") for number in range(3)], tarfile.PAX_FORMAT)
    whole = len(data.rstrip(b"\0")) + 1024 + -len(data.rstrip(b"\0")) % 512  # with the blocks of zeros at the end
    if place >= whole:
        return
    with pytest.raises(DamagedShard):
        read_members(io.BytesIO(data[:place]), place, DEFAULT_READING)


def test_a_sparse_bomb_is_left_out_and_named() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "file", "a.png", "")
        info = tarfile.TarInfo("bomb.png")
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "bomb.png",
            "GNU.sparse.realsize": str(2**40),
        }
        data = f"1\n0\n{len(PNG)}\n".encode().ljust(512, b"\0") + PNG
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        add(tar, "file", "b.png", "")
    found = read_members(io.BytesIO(file.getvalue()), len(file.getvalue()), DEFAULT_READING)
    assert [key for key, _ in found.images] == ["a.png", "b.png"]
    assert found.lost["bomb.png"].startswith("too large: ")


def test_the_shared_odd_tars_give_what_their_index_gives(shared: Path, tmp_path: Path) -> None:
    paths = [path for path in sorted(shared.rglob("*.tar")) if path.stat().st_size < 2**22]
    assert paths
    for path in paths:
        try:
            whole = open_tar(str(path)).problem is None
        except Exception:  # compressed
            continue
        if whole and any(path.read_bytes()[:512]):
            assert_alike(path.read_bytes(), tmp_path / "copy.tar")
