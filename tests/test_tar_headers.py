"""Headers of tars that are read without tarfile: always to the same result."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imtok.data.archives import tars
from imtok.data.archives.tar_headers import plain_member
from imtok.data.archives.tars import open_tar

_JPEG = b"\xff\xd8\xff"
_FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def tar_of(form: str, edit: Callable[[tarfile.TarInfo], None] | None = None, **options: Any) -> bytearray:
    """A tar of four files; `edit` changes each header."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=_FORMATS[form], **options) as tar:
        for name, data in {"a.jpg": _JPEG, "b.cls": b"7", "ü.png": bytes(600), "noext": _JPEG + bytes(509)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if edit:
                edit(member)
            tar.addfile(member, io.BytesIO(data))
    return bytearray(file.getvalue())


def by_tarfile_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(tars, "plain_member", lambda file, offset: None)  # noqa: ARG005
        return open_tar(str(path))


@pytest.mark.parametrize("form", _FORMATS)
def test_plain_headers_are_read_as_tarfile_reads_them(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of(form))
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", lambda *_: pytest.fail("tarfile read a header"))
    with (tmp_path / "t.tar").open("rb") as file:
        found = plain_member(file, 0)
        assert found == ("a.jpg", 512, 3)
        assert plain_member(file, found.end) == ("b.cls", 1536, 1)


def test_a_time_with_a_fraction_needs_no_tarfile(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of("pax", lambda member: setattr(member, "mtime", 1700000000.25)))
    with (tmp_path / "t.tar").open("rb") as file:
        assert plain_member(file, 0) == ("a.jpg", 3 * 512, 3)


@pytest.mark.parametrize("name", ["long/" * 40 + "x.jpg", "ü.jpg"])
def test_records_of_more_than_a_time_are_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of("pax", lambda member: setattr(member, "name", name)))
    with (tmp_path / "t.tar").open("rb") as file:
        assert plain_member(file, 0) is None


def test_global_records_are_left_to_tarfile(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of("pax", pax_headers={"path": "all.jpg"}))
    assert [image.key for image in open_tar(str(tmp_path / "t.tar")).images] == [
        "all.jpg",
        "all.jpg",
        "ü.png",
        "all.jpg",
    ]


@pytest.mark.parametrize("form", _FORMATS)
def test_damaged_tars_are_read_as_tarfile_reads_them(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, draw, path = tar_of(form), random.Random(0), tmp_path / "t.tar"
    problems = set()
    for _ in range(60):
        tar = bytearray(whole[: draw.choice([len(whole), len(whole), draw.randrange(600, len(whole))])])
        header = draw.randrange(len(tar) // 512) * 512
        for _ in range(draw.randrange(3)):
            place = draw.choice([0, 99, 100, 107, 124, 135, 136, 148, 154, 155, 156, 257, 329, 345])
            tar[header + place] = draw.choice(b"\0 017_\x80\xffxgLSn")
        if draw.random() < 0.7:  # a checksum that is right
            total = sum(tar[header : header + 148]) + 256 + sum(tar[header + 156 : header + 512])
            tar[header + 148 : header + 156] = b"%06o\0 " % total
        path.write_bytes(tar)
        found, expected = open_tar(str(path)), by_tarfile_alone(path, monkeypatch)
        assert (found.images, found.problem, found.notes) == (expected.images, expected.problem, expected.notes)
        problems.add((found.problem or "whole").split(" ")[0])
    assert problems >= {"whole", "cut", "damaged"}
