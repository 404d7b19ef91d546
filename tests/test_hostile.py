"""Inputs as they are found: every awkward file is taken or reported, and none ends in a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from making import encoded, fill, picture, pictures_tar, tiny_tokenizer, write_tar

from imtok.decoding import decode
from imtok.encoding import EncodeReport, encode
from imtok.errors import SourceError
from imtok.tokens import Shard, open_tokens, verify_tokens

NAMES = ["0.png", "1.png", "2.png", "3.png"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def shards(folder: Path) -> list[Shard]:
    return list(open_tokens(folder, partial=True).shards())


def test_every_line_of_the_hostile_folders_expectations_is_met(shared: Path, tokenizer: Path, tmp_path: Path) -> None:
    source = shared / "data/hostile"
    report = encode([source], tmp_path / "t", tokenizer, unit_size=7)
    taken = {key for key, _ in open_tokens(tmp_path / "t")}
    skipped = {
        key: reason
        for one in shards(tmp_path / "t")
        for key, reason in zip(one.skip_keys, one.skip_reasons, strict=True)
    }
    for name, line in json.loads((source / "expect.json").read_text(encoding="utf-8")).items():
        verdict = "ok" if name in taken else "bad" if skipped.get(name) else "ignored"
        assert verdict == line["verdict"], (name, line["why"])
    assert report.complete
    decode(tmp_path / "t", tmp_path / "back")
    assert len(list((tmp_path / "back").rglob("*.png"))) == len(taken)


def test_a_turned_photograph_is_recorded_upright(shared: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([shared / "data/hostile/exif_rotated.jpg"], tmp_path / "t", tokenizer)
    assert shards(tmp_path / "t")[0].original_size.tolist() == [[320, 240]]


def test_each_hostile_tar_does_what_the_event_table_says(shared: Path, tokenizer: Path, tmp_path: Path) -> None:
    report = encode([shared / "data/hostile/tars"], tmp_path / "t", tokenizer)
    failed = {Path(unit.name).name: unit.reason for unit in report.failed}
    assert set(failed) == {f"{n}-00000.tar" for n in ("cut_short", "duplicate_keys", "empty", "not_a_tar")}
    assert "cut short inside c2.jpg" in failed["cut_short-00000.tar"]
    assert "4 keys occur more than once, first d0.jpg" in failed["duplicate_keys-00000.tar"]
    assert "0 bytes" in failed["empty-00000.tar"]
    assert [Path(name).name for name in report.empty] == ["no_images-00000.tar"]
    assert not report.complete
    assert {reason: skips.count for reason, skips in report.skips.items()} == {"unsafe name": 2, "truncated": 1}

    again = encode([shared / "data/hostile/tars"], tmp_path / "t", tokenizer, salvage=True, on_duplicate="suffix")
    assert again.complete
    assert not again.failed
    assert {Path(line.split(":")[0]).name for line in again.salvaged} == {
        f"{n}-00000.tar" for n in ("cut_short", "empty", "not_a_tar")
    }
    decode(tmp_path / "t", tmp_path / "back")
    assert (tmp_path / "back/path_escape-00000/ok.jpg.png").exists()
    assert not list(tmp_path.rglob("escape*"))


# The same behaviours on files made here


def test_unreadable_images_are_skipped_with_their_reasons(tokenizer: Path, tmp_path: Path) -> None:
    whole = encoded(picture(0))
    bad = {"cut.png": whole[: len(whole) // 2], "empty.jpg": b"", "page.jpg": b"<html>", "flipped.png": _flipped(whole)}
    fill(tmp_path / "in", ["good.png"])
    for name, data in bad.items():
        (tmp_path / "in" / name).write_bytes(data)
    report = encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    found = {skips.examples[0]: reason for reason, skips in report.skips.items()}
    assert found == {"cut.png": "truncated", "empty.jpg": "empty", "page.jpg": "not an image", "flipped.png": "corrupt"}
    assert (report.images, report.skipped) == (1, 4)


def _flipped(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


def test_broken_images_alone_make_a_complete_empty_set(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"broken")
    report = encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    assert (report.images, report.skipped, report.complete) == (0, 1, True)
    assert len(open_tokens(tmp_path / "t")) == 0
    assert decode(tmp_path / "t", tmp_path / "back").images == 0


def _tar(path: Path, kind: str) -> Path:
    """A tar that something is wrong with."""
    if kind == "duplicates":
        return pictures_tar(path, [*NAMES, NAMES[0]])
    whole = pictures_tar(path, NAMES).read_bytes()
    last = whole.rindex(b"3.png\0")
    cut = {"inside": last + 600, "between": last, "header": last + 100, "empty": 0}
    path.write_bytes(b"GIF89a" * 300 if kind == "foreign" else whole[: cut[kind]])
    return path


@pytest.mark.parametrize(
    ("kind", "reason", "salvageable"),
    [
        ("inside", "cut short inside 3.png", 3),
        ("between", "the end-of-archive blocks are missing", 3),
        ("header", "neither a member nor the end of the archive", 3),
        ("empty", "the file is empty", 0),
        ("foreign", "not an uncompressed tar", 0),
    ],
)
def test_a_damaged_tar_fails_alone_and_can_be_salvaged(
    tokenizer: Path, tmp_path: Path, kind: str, reason: str, salvageable: int
) -> None:
    tars = [
        pictures_tar(tmp_path / "a.tar", NAMES),
        _tar(tmp_path / "b.tar", kind),
        pictures_tar(tmp_path / "c.tar", NAMES),
    ]
    report = encode(tars, tmp_path / "t", tokenizer)
    assert [unit.name for unit in report.failed] == [str(tars[1])]
    assert reason in report.failed[0].reason
    assert (report.images, report.complete) == (8, False)
    problems = verify_tokens(tmp_path / "t").problems
    assert "unit 1 (b.tar) is missing; run the same `imtok encode` again" in problems

    again = encode(tars, tmp_path / "t", tokenizer, salvage=True)
    assert (again.complete, again.images, len(again.salvaged)) == (True, 8 + salvageable, 1)
    assert reason in str(shards(tmp_path / "t")[1].header.salvaged)
    assert verify_tokens(tmp_path / "t").ok


def test_a_repeated_key_fails_its_tar_unless_renamed(tokenizer: Path, tmp_path: Path) -> None:
    tar = _tar(tmp_path / "x.tar", "duplicates")
    report = encode([tar], tmp_path / "t", tokenizer)
    assert "1 key occurs more than once, first 0.png" in report.failed[0].reason
    assert encode([tar], tmp_path / "t", tokenizer, on_duplicate="suffix").complete
    assert [key for key, _ in open_tokens(tmp_path / "t")] == [*NAMES, "0~2.png"]


def test_a_tar_without_images_is_an_empty_unit(tokenizer: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("notes.txt", b"hi")])
    report: EncodeReport = encode([tar], tmp_path / "t", tokenizer)
    assert report.empty == (str(tar),)
    assert report.complete
    assert verify_tokens(tmp_path / "t").ok


def test_names_that_would_leave_the_folder_are_skipped(tokenizer: Path, tmp_path: Path) -> None:
    tar = pictures_tar(tmp_path / "x.tar", ["../up.png", "/abs.png", "ok.png", "../up.png"])
    report = encode([tar], tmp_path / "t", tokenizer)
    assert report.skips["unsafe name"].count == 3
    assert [key for key, _ in open_tokens(tmp_path / "t")] == ["ok.png"]
    assert verify_tokens(tmp_path / "t").ok


def test_a_missing_source_is_named_and_nothing_is_made(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        encode([tmp_path / "nowhere"], tmp_path / "t", tokenizer)
    assert not (tmp_path / "t").exists()
