"""Token folders whose inputs grow: what is there stays, what is new is added."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from making import contents, encoded, fill, picture, tiny_tokenizer, write_tar

import imtok.encoding.settings as settings
from imtok.decoding import decode
from imtok.description import describe
from imtok.encoding import encode
from imtok.errors import Interrupted, SourceError, TokensError
from imtok.tokens import open_tokens, read_info, verify_tokens, write_tokens
from imtok.tokens.plan import plan_path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def shard(path: Path, *names: str) -> Path:
    return write_tar(path, [(name, encoded(picture(number))) for number, name in enumerate(names)])


def kept(before: dict[str, bytes], folder: Path) -> bool:
    """Tell whether every shard, plan and imtok.json is as it was."""
    after = contents(folder)
    return all(after[name] == data for name, data in before.items() if name != "MANIFEST.jsonl")


def test_a_new_tar_is_added_and_the_rest_kept(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "in").mkdir()
    shard(tmp_path / "in/00000.tar", "a.png", "b.png")
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    before = contents(tmp_path / "t")
    shard(tmp_path / "in/00001.tar", "a.png", "c.png")
    report = encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    assert (report.units_added, report.units_done, report.images, report.complete) == (1, 1, 4, True)
    assert kept(before, tmp_path / "t")
    assert [key for key, _ in open_tokens(tmp_path / "t")] == ["a.png", "b.png", "a.png", "c.png"]
    assert verify_tokens(tmp_path / "t").ok


def test_growing_thrice_goes_on_with_the_unit_numbers(tmp_path: Path, tokenizer: Path) -> None:
    for round_ in range(3):
        fill(tmp_path / "in", [f"{round_}{name}.png" for name in "abc"])
        shard(tmp_path / f"{round_}.tar", f"t{round_}.png")
        tars = sorted(tmp_path.glob("*.tar"))
        encode([tmp_path / "in", *tars], tmp_path / "t", tokenizer, unit_size=2)
        assert verify_tokens(tmp_path / "t").problems == []
    assert [entry.first_unit for entry in read_info(tmp_path / "t").extensions] == [3, 6]
    again = encode([tmp_path / "in", *tars], tmp_path / "t", tokenizer)
    assert (again.was_complete, again.units_added, again.images) == (True, 0, 12)


def test_equal_keys_are_told_apart_by_their_source(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["z.png"])
    first = shard(tmp_path / "one.tar", "a.png")
    encode([tmp_path / "in", first], tmp_path / "t", tokenizer)
    second = shard(tmp_path / "two.tar", "b.png", "a.png")
    encode([tmp_path / "in", first, second], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    found = [(tokens.key(index), *tokens.source(index)) for index in range(len(tokens))]
    assert found == [("z.png", None, 0, 0), ("a.png", "one", 1, 0), ("b.png", "two", 2, 0), ("a.png", "two", 2, 1)]
    decode(tmp_path / "t", tmp_path / "back")
    names = sorted(path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.png"))
    assert names == ["one/a.png.png", "two/a.png.png", "two/b.png.png", "z.png.png"]


def test_new_classes_follow_the_old_numbers(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["cat/1.png", "dog/1.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["ape/1.png", "dog/2.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    assert tokens.class_names == ("cat", "dog", "ape")
    assert {tokens.key(index): tokens.label(index) for index in range(4)} == {
        "cat/1.png": 0,
        "dog/1.png": 1,
        "ape/1.png": 2,
        "dog/2.png": 1,
    }


@pytest.mark.parametrize("change", ["vanished", "other bytes"])
def test_a_set_that_lost_or_changed_inputs_is_refused(tmp_path: Path, tokenizer: Path, change: str) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    before = contents(tmp_path / "t")
    fill(tmp_path / "in", ["c.png"])
    (tmp_path / "in/a.png").unlink() if change == "vanished" else (tmp_path / "in/a.png").write_bytes(b"other")
    with pytest.raises(SourceError, match=r"a\.png (is missing|had \d+ bytes, has 5)"):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    assert contents(tmp_path / "t") == before


def test_inputs_under_another_name_are_explained(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, rules=1)
    fill(tmp_path / "more", ["b.png"])
    with pytest.raises(SourceError, match=r"a\.png is in/a\.png beside other folders, put the new images into its own"):
        encode([tmp_path / "in", tmp_path / "more"], tmp_path / "t", tokenizer)
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"x\.zip: rules 1 read no \.zip files"):
        encode([tmp_path / "in", tmp_path / "x.zip"], tmp_path / "t", tokenizer)


def test_tars_beside_which_images_have_come_are_explained(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "in").mkdir()
    shard(tmp_path / "in/a.tar", "a.png")
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["b.png"])
    with pytest.raises(
        SourceError, match=r"a\.tar is missing \(in a folder that holds images, containers are not read"
    ):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)


def test_an_unfinished_extension_is_told_and_finished(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=1)
    fill(tmp_path / "in", ["c.png", "d.png"])
    assert not encode([tmp_path / "in"], tmp_path / "t", tokenizer, shard=(0, 2)).complete
    with pytest.raises(TokensError, match="1 of 4 units are missing"):
        open_tokens(tmp_path / "t")
    assert [key for key, _ in open_tokens(tmp_path / "t", partial=True)] == ["a.png", "b.png", "c.png"]
    assert (describe(tmp_path / "t")["complete"], describe(tmp_path / "t")["dataset_id"]) == (False, None)
    problems = verify_tokens(tmp_path / "t").problems
    assert [problem.split(";")[0] for problem in problems] == [
        "MANIFEST.jsonl: 2 units, 4 are planned",
        "unit 3 (d.png) is missing",
    ]
    assert encode([tmp_path / "in"], tmp_path / "t", tokenizer).complete
    assert verify_tokens(tmp_path / "t").ok


def test_an_extension_records_its_own_versions(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", ["a.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["b.png"])
    monkeypatch.setattr(settings, "_versions", lambda: {"imtok": "9", "torch": "9", "pillow": "9"})
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    info = read_info(tmp_path / "t")
    assert info.numerics.versions["torch"] != "9"
    assert info.extensions[0].numerics.versions["torch"] == "9"


def test_a_killed_extension_leaves_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    for name in ("once", "killed"):
        fill(tmp_path / name, ["a.png", "b.png"])
        encode([tmp_path / name], tmp_path / f"{name}-t", tokenizer, unit_size=1)
        fill(tmp_path / name, ["c.png", "d.png"])
    encode([tmp_path / "once"], tmp_path / "once-t", tokenizer)
    with pytest.raises(Interrupted):
        encode([tmp_path / "killed"], tmp_path / "killed-t", tokenizer, progress=interrupt)
    encode([tmp_path / "killed"], tmp_path / "killed-t", tokenizer)
    assert contents(tmp_path / "once-t") == contents(tmp_path / "killed-t")


def test_a_call_killed_at_the_manifest_leaves_nothing_behind(tmp_path: Path, tokenizer: Path) -> None:
    encode([fill(tmp_path / "in", ["a.png"])], tmp_path / "t", tokenizer)
    before = contents(tmp_path / "t")
    (tmp_path / "t/MANIFEST.jsonl").rename(tmp_path / "t/.tmp-MANIFEST.jsonl-1-00000000")
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    assert contents(tmp_path / "t") == before


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_first_line_of_an_extension_is_named(tmp_path: Path, tokenizer: Path) -> None:
    for names in (["a.png"], ["b.png"]):
        fill(tmp_path / "in", names)
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    path = tmp_path / "t" / plan_path(1)
    lines = path.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    path.write_text("".join([json.dumps(header | {"first_unit": 7}) + "\n", *lines[1:]]))
    with pytest.raises(TokensError, match=r"inputs-00001\.jsonl: does not follow"):
        open_tokens(tmp_path / "t")


@pytest.mark.parametrize(("number", "damage"), [(0, "cut"), (1, "cut"), (1, "lost")])
def test_a_damaged_or_lost_list_of_inputs_is_never_replaced(
    tmp_path: Path, tokenizer: Path, number: int, damage: str
) -> None:
    for names in (["b.png", "c.png"], ["d.png", "e.png"], ["a.png"]):
        fill(tmp_path / "in", names)
        if names != ["a.png"]:
            encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=1)
    path = tmp_path / "t" / plan_path(number)
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    if damage == "cut":
        path.write_bytes(b"".join(lines[:-1]))
    before = contents(tmp_path / "t")
    with pytest.raises(TokensError, match=rf"{path.name}: (damaged, it lists 1 inputs of 2|missing, and unit 2)"):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    assert contents(tmp_path / "t") == before


def test_new_folders_that_move_old_images_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["more/3.png"])
    with pytest.raises(SourceError, match=r"train/cat/1\.png: would be of another class"):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)


def test_new_folders_that_move_the_images_of_tars_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    first = shard(tmp_path / "a.tar", "train/cat/1.png", "train/dog/2.png", "val/cat/3.png")
    encode([first], tmp_path / "t", tokenizer)
    with pytest.raises(SourceError, match="would be of another class"):
        encode([first, shard(tmp_path / "b.tar", "more/1.png")], tmp_path / "t", tokenizer)


def test_names_that_come_to_numbers_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    (tmp_path / "in/a.cls").write_text("0")
    encode([tmp_path / "in/"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["d.png", "e.png"])
    for name in "de":
        (tmp_path / f"in/{name}.cls").write_text(f"class of {name}")
    with pytest.raises(SourceError, match=r"new inputs have names in \.cls files for labels, the job has numbers"):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)


def test_labels_that_come_to_a_job_without_are_mentioned(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    fill(tmp_path / "in", ["b.png"])
    (tmp_path / "in/b.cls").write_text("5")
    notes = encode([tmp_path / "in"], tmp_path / "t", tokenizer).label_notes
    assert [note.split(";")[0] for note in notes] == [
        "the job was begun without, so it leaves out numbers in .cls files"
    ]
    fill(tmp_path / "in", ["c.png"])
    assert encode([tmp_path / "in"], tmp_path / "t", tokenizer, labels="none").label_notes == ()


def test_a_process_that_knew_fewer_units_ends_well(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])

    def grow(_: object) -> None:
        if not (tmp_path / "in/c.png").exists():
            fill(tmp_path / "in", ["c.png"])
            encode([tmp_path / "in"], tmp_path / "t", tokenizer)

    report = encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=1, progress=grow)
    assert (report.images, report.units_total, report.complete) == (2, 2, True)
    assert len(open_tokens(tmp_path / "t")) == 3
    assert verify_tokens(tmp_path / "t").ok


def test_codes_made_elsewhere_take_no_images(tmp_path: Path, tokenizer: Path) -> None:
    write_tokens(tmp_path / "t", [], np.zeros((0, 4, 4), np.int64), tokenizer=tokenizer)
    with pytest.raises(TokensError, match="holds codes that were made elsewhere"):
        encode([fill(tmp_path / "in", ["a.png"])], tmp_path / "t", tokenizer)


def of_format_1(folder: Path) -> None:
    """Turn a token folder into one from before there were rules."""
    content = json.loads((folder / "imtok.json").read_text())
    for name in ("rules", "labels", "max_pixels", "salvage_images"):
        del content[name]
    text = json.dumps(content | {"version": 1}, indent=2, ensure_ascii=False) + "\n"
    (folder / "imtok.json").write_text(text)


def old_folder(path: Path, source: Path, tokenizer: Path) -> Path:
    """A token folder of format 1 of the classes cat and dog, beside which lies a picture without a suffix."""
    fill(source, ["cat/a.png", "dog/b.png", "dog/c.png"])
    encode([source], path, tokenizer, unit_size=1)
    of_format_1(path)
    (source / "cat" / "photo").write_bytes((source / "cat/a.png").read_bytes())
    return path


def test_an_unfinished_folder_of_format_1_keeps_rules_1(tmp_path: Path, tokenizer: Path) -> None:
    folder = old_folder(tmp_path / "t", tmp_path / "in", tokenizer)
    before = contents(folder)
    (folder / "shards/000/00000002.safetensors").unlink()
    (folder / "MANIFEST.jsonl").unlink()
    report = encode([tmp_path / "in"], folder, tokenizer)
    assert (report.complete, report.units_done, report.units_added) == (True, 1, 0)
    assert contents(folder) == before


def test_a_grown_folder_of_format_1_becomes_format_2(tmp_path: Path, tokenizer: Path) -> None:
    folder = old_folder(tmp_path / "t", tmp_path / "in", tokenizer)
    fill(tmp_path / "in", ["ape/d.png"])
    assert encode([tmp_path / "in"], folder, tokenizer).images == 4
    info = read_info(folder)
    assert (info.version, info.rules, info.extensions[0].rules) == (2, 1, 1)
    assert open_tokens(folder).class_names == ("cat", "dog", "ape")
    assert verify_tokens(folder).ok


def test_an_unfinished_folder_of_format_1_without_classes_stays_without(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["cat/a.png", "cat/b.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=1)
    of_format_1(tmp_path / "t")
    (tmp_path / "t/shards/000/00000001.safetensors").unlink()
    (tmp_path / "t/MANIFEST.jsonl").unlink()
    fill(tmp_path / "in", ["dog/c.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    assert [tokens.label(index) for index in range(3)] == [None, None, None]


def test_a_recorded_tar_keeps_its_name_beside_a_twin(tmp_path: Path, tokenizer: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shard(tmp_path / name / "x.tar", f"{name}.png")
    encode([tmp_path / "a/x.tar"], tmp_path / "t", tokenizer)
    encode([tmp_path / "a/x.tar", tmp_path / "b/x.tar"], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    assert [tokens.source(index).container for index in range(2)] == ["x", "b-x"]


def test_an_archive_inside_a_tar_is_said(tmp_path: Path, tokenizer: Path) -> None:
    inner = shard(tmp_path / "inner.tar", "a.png").read_bytes()
    write_tar(tmp_path / "outer.tar", [("shards/inner.tar", inner)])
    report = encode([tmp_path / "outer.tar"], tmp_path / "t", tokenizer)
    assert len(report.empty) == 1
    assert [note for note in report.notes if "inner.tar" in note]


def test_rules_1_read_a_new_set_as_before(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    (tmp_path / "in/photo").write_bytes((tmp_path / "in/a.png").read_bytes())
    assert encode([tmp_path / "in"], tmp_path / "old", tokenizer, rules=1).images == 1
    assert encode([tmp_path / "in"], tmp_path / "new", tokenizer).images == 2
    assert read_info(tmp_path / "old").rules == 1
    with pytest.raises(TokensError, match="begun with --rules 1, this call has 2"):
        encode([tmp_path / "in"], tmp_path / "old", tokenizer, rules=2)
