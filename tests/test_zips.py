"""Zip files: their members under their true names, and damage that is seen."""

from __future__ import annotations

import io
import pickle
import stat
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from making import encoded, outcomes, picture, tiny_tokenizer

from imtok.data.archives.zips import open_zip
from imtok.data.containers import Container
from imtok.encoding import encode
from imtok.errors import SourceError
from imtok.tokens import open_tokens, verify_tokens

PNG = b"\x89PNG\r\n\x1a\n"


def opened(path: Path) -> Container:
    return open_zip(str(path))


def write_zip(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_by_many_threads_and_after_pickling(tmp_path: Path, method: int) -> None:
    data = {f"in/{number}.png": encoded(picture(number)) for number in range(20)}
    found = opened(write_zip(tmp_path / "x.zip", data.items(), method))
    images = pickle.loads(pickle.dumps(found.images))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda image: image.read(), images * 3))
    assert read == [*data.values()] * 3
    assert [(image.key, image.size) for image in images] == [(key, len(value)) for key, value in data.items()]
    assert found.problem is None


def test_what_lies_beside_images_is_found(tmp_path: Path) -> None:
    members = [("a.jpg", b"A"), ("a.cls", b"7"), ("a.json", b"{}"), ("dataset.json", b"[]"), ("b.jpg", b"B")]
    found = opened(write_zip(tmp_path / "x.zip", members))
    assert [(image.beside(".cls"), image.beside(".json")) for image in found.images] == [(b"7", b"{}"), (None, None)]
    assert found.files["dataset.json"]() == b"[]"


def test_hidden_names_and_archives_inside_are_noted(tmp_path: Path) -> None:
    names = ["a.jpg", "__MACOSX/a.jpg", "in/._b.jpg", "in/x.tar", "in/", "photo", "notes"]
    found = opened(write_zip(tmp_path / "x.zip", [(name, PNG if name == "photo" else b"x") for name in names]))
    assert [image.key for image in found.images] == ["a.jpg", "photo"]
    assert len(found.notes) == 2


def test_names_are_read_in_the_encoding_that_was_meant(tmp_path: Path) -> None:
    written = {"wäre.jpg": "wäre.jpg".encode("cp437"), "名.jpg": "名.jpg".encode(), "in/c.jpg": rb"in\c.jpg"}
    path = write_zip(
        tmp_path / "x.zip", [(f"{number}".ljust(len(raw), "_"), b"x") for number, raw in enumerate(written.values())]
    )
    data = path.read_bytes()
    for number, raw in enumerate(written.values()):
        data = data.replace(f"{number}".ljust(len(raw), "_").encode(), raw)
    path.write_bytes(data.replace(b"\x14\x03", b"\x14\x00"))  # made under DOS
    assert [image.key for image in opened(path).images] == [*written]


def test_links_are_resolved_within_the_zip(tmp_path: Path) -> None:
    members: list[tuple[str | zipfile.ZipInfo, bytes]] = [("in/a.jpg", b"A")]
    for name, target in (("b.jpg", b"in/a.jpg"), ("c.jpg", b"in/gone.jpg"), ("d.jpg", b"../a.jpg")):
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        members.append((link, target))
    assert outcomes(opened(write_zip(tmp_path / "x.zip", members))) == {
        "in/a.jpg": b"A",
        "b.jpg": b"A",
        "c.jpg": "link to nothing",
        "d.jpg": "link out of the archive",
    }


def test_members_that_cannot_be_had_have_reasons(tmp_path: Path) -> None:
    names = ["encrypted.jpg", "method.jpg", "bomb.jpg", "damaged.jpg", "good.jpg"]
    path = write_zip(tmp_path / "x.zip", [(name, encoded(picture(0))) for name in names], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    entries = [data.index(name.encode(), directory) - 46 for name in names]
    data[entries[0] + 8] |= 1
    data[entries[1] + 10] = 9
    data[entries[2] + 24 : entries[2] + 28] = (2**32 - 2).to_bytes(4, "little")
    data[data.index(b"damaged.jpg") + 60] ^= 255
    path.write_bytes(data)
    found = outcomes(opened(path))
    assert found.pop("good.jpg") == encoded(picture(0))
    assert found == {
        "encrypted.jpg": "encrypted",
        "method.jpg": "unsupported compression",
        "bomb.jpg": "too large",
        "damaged.jpg": "corrupt",
    }


def test_a_member_never_unpacks_to_more_than_it_claims(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", [("a.jpg", bytes(10**6))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert outcomes(opened(path)) == {"a.jpg": "corrupt"}  # its checksum is that of all bytes


def test_a_cut_zip_is_a_problem_at_every_length(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "x.zip", [("a.jpg", b"A" * 50), ("b.jpg", b"B")]).read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut.zip").write_bytes(data[:length])
        assert opened(tmp_path / "cut.zip").problem, length
    (tmp_path / "cut.zip").write_bytes(b"<html>")
    assert "not a zip file" in str(opened(tmp_path / "cut.zip").problem)


def test_a_cut_zip_gives_its_whole_members_to_salvage(tmp_path: Path) -> None:
    pictures = [(f"ä{number}.png", encoded(picture(number))) for number in range(3)]
    data = write_zip(tmp_path / "x.zip", pictures, zipfile.ZIP_DEFLATED).read_bytes()
    second, third = (place for place in range(1, len(data)) if data[place : place + 4] == b"PK\x03\x04")
    for length, whole in ((second - 1, 0), (second, 1), (third + 60, 2), (len(data) - 30, 3)):
        (tmp_path / "x.zip").write_bytes(data[:length])
        found = opened(tmp_path / "x.zip")
        assert outcomes(found) == dict(pictures[:whole])
        assert (found.salvageable, found.problem is None) == (whole > 0, False)


def test_a_damaged_zip_is_never_an_empty_unit(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", [("a.png", encoded(picture(0)))])
    path.write_bytes(path.read_bytes()[:200])
    report = encode([path], tmp_path / "t", tiny_tokenizer(tmp_path / "tokenizer"), salvage=True)
    assert (report.complete, report.salvaged) == (False, ())
    assert "nothing of it can be salvaged: copy it again" in report.failed[0].reason


def test_zips_behind_each_other_are_a_problem(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "x.zip", [("a.jpg", b"A")]).read_bytes()
    two = write_zip(tmp_path / "y.zip", [("b.jpg", b"B")]).read_bytes()
    (tmp_path / "z.zip").write_bytes(one + two)
    assert "another zip file before byte" in str(opened(tmp_path / "z.zip").problem)
    (tmp_path / "z.zip").write_bytes(b"#!/bin/sh\n" + two)  # unpacks itself
    assert outcomes(opened(tmp_path / "z.zip")) == {"b.jpg": b"B"}


def test_a_zip_of_the_large_format_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as member:
        member.write(b"A")
    (tmp_path / "x.zip").write_bytes(file.getvalue())
    assert outcomes(opened(tmp_path / "x.zip")) == {"a.jpg": b"A"}


def test_a_zip_that_shrinks_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", [("a.jpg", b"A" * 100)])
    found = opened(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SourceError, match="changed while it was read"):
        found.images[0].read()


def test_a_zip_becomes_a_unit_of_its_own_name(tmp_path: Path) -> None:
    members = [("train/a.png", encoded(picture(0))), ("../up.png", b"x"), ("a.cls", b"1")]
    source = write_zip(tmp_path / "photos.zip", members)
    report = encode([source], tmp_path / "t", tiny_tokenizer(tmp_path / "tokenizer"))
    assert report.skips["unsafe name"].count == 1
    assert [key for key, _ in open_tokens(tmp_path / "t")] == ["train/a.png"]
    assert '"photos.zip"' in (tmp_path / "t/plan/inputs-00000.jsonl").read_text()
    assert verify_tokens(tmp_path / "t").ok
