"""The check of an export against its token set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exporting import random_tokens
from scripts import call_script, import_script

from imtok.errors import ConfigError, Interrupted, TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export.formats import FORMATS
from imtok.export.formats.npy import Npy
from imtok.export.verification import verify_export

OPTIONS = ExportOptions(
    offset=10, boi=1, eoi=2, eol=3, eod=4, label="after", order="concatenated", codebook_offsets=True, shuffle=3
).model_copy(update={"val_fraction": 0.3, "shard_size": 5})


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return random_tokens(tmp_path / "tokens", units=(6, 9, 5), codebooks=2, classes=4)


def test_a_sound_export_is_read_by_the_library(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy", OPTIONS)
    result = verify_export(tmp_path / "out", tokens)
    assert (result.problems, result.images) == ([], 20)
    assert result.compared == ["ids", "keys", "labels"]
    assert result.reader == f"numpy {np.__version__}"


def test_without_the_library_the_own_reader_reads(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_tokens(tokens, tmp_path / "out", "npy", OPTIONS)
    monkeypatch.setattr(Npy, "library", "nowhere-to-be-found")
    result = verify_export(tmp_path / "out", tokens)
    assert result.ok
    assert result.reader == "imtok's reader of npy (nowhere-to-be-found is not installed)"


def test_a_copied_export_is_checked_like_the_original(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy", OPTIONS)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    shutil.rmtree(tmp_path / "out")
    assert verify_export(tmp_path / "copy", tokens).ok


def change_an_id(folder: Path) -> None:
    array = np.lib.format.open_memmap(folder / "train.npy", mode="r+")
    array[4, 2] = (array[4, 2] + 1) % 1000


def change_a_key(folder: Path) -> None:
    path = folder / "train.keys.txt"
    path.write_text(path.read_text().replace("1/3\n", "1/x\n"))


def change_a_label(folder: Path) -> None:
    labels = np.load(folder / "train.labels.npy")
    labels[7] += 1
    np.save(folder / "train.labels.npy", labels)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_an_id, r"image 4 of train, 0/4: code \d+ at \(0, 2, 0\), expected \d+"),
        (change_a_key, "image 9 of train, 1/3: its key is 1/x"),
        (change_a_label, "image 7 of train, 1/1: its label is"),
    ],
)
def test_each_difference_names_its_image(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(6, 9, 5), classes=4)
    export_tokens(tokens, tmp_path / "out", "npy")
    damage(tmp_path / "out")
    first, second = verify_export(tmp_path / "out", tokens).problems
    assert "imtok-export.json says" in first
    assert re.match(message, second)


def test_a_missing_file_is_named(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    (tmp_path / "out" / "train.npy").unlink()
    problems = verify_export(tmp_path / "out", tokens).problems
    assert problems[0].endswith("train.npy: missing; export the tokens again")


def test_a_missing_file_is_one_problem_of_a_library(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "datatrove")
    (tmp_path / "out" / "train" / "000000.ds").unlink()
    (problem,) = verify_export(tmp_path / "out", tokens).problems
    assert problem.endswith("000000.ds: missing; export the tokens again")


def test_a_library_reads_no_damaged_file(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "megatron")
    (tmp_path / "out" / "train.idx").write_bytes(b"")  # of which IndexedDataset leaves a trace at its end
    first, second = verify_export(tmp_path / "out", tokens).problems
    assert first.endswith("export the tokens again")
    assert second.endswith("the file is damaged")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_file_beyond_the_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(FORMATS[name], "library", None)
    tokens = random_tokens(tmp_path / "tokens", (3,), classes=2)
    report = export_tokens(tokens, tmp_path / "out", name)
    first = next(report.record.files[0].paths(tmp_path / "out"))
    shutil.copy(first, first.with_name(f"9{first.name}"))
    (first.parent / ".DS_Store").touch()
    (problem,) = verify_export(tmp_path / "out", tokens).problems
    assert problem == (
        f"{first.with_name(f'9{first.name}')}: imtok-export.json does not list it, and a trainer may read it; "
        "move it elsewhere"
    )


def test_many_files_beyond_the_record_are_counted(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    for number in range(25):
        (tmp_path / "out" / f"{number:02}.npy").touch()
    problems = verify_export(tmp_path / "out", tokens).problems
    assert len(problems) == 21
    assert problems[-1] == "and 5 others of this kind"


def test_the_cache_of_megatron_is_passed_over(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "megatron")
    (tmp_path / "out" / "cache" / "GPTDataset_indices").mkdir(parents=True)
    (tmp_path / "out" / "cache" / "GPTDataset_indices" / "index.npy").touch()
    assert verify_export(tmp_path / "out", tokens).ok


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"num_ids": 7}, "num_ids is 7, expected 1000; the record was changed"),
        ({"code_ids": [5, 1005]}, r"code_ids is \[5, 1005\], expected \[0, 1000\]"),
        ({"dtype": "int8"}, "dtype is int8, expected uint16"),
        ({"images": {"train": 19}}, "images.train is 19, expected 20"),
        ({"images": {"train": 20, "val": 1}}, "images.val is 1, expected missing"),
        ({"class_names": []}, "class_names is "),
        ({"complete": False}, "complete is False, expected True"),
        ({"origin": {"repo": "x"}}, "origin"),
        ({"files": []}, "train.keys.txt: imtok-export.json does not list it"),
        ({"to": "4m"}, "dtype is uint16, expected int16"),
        ({"options": {"shuffle": 5}}, "image 0 of train"),
        ({"options": {"shard_size": 5}}, "pieces.train is 1, expected 4"),
    ],
)
def test_an_edited_record_is_found(tokens: Path, tmp_path: Path, edit: dict[str, object], message: str) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    path = tmp_path / "out" / "imtok-export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    assert re.search(message, "\n".join(verify_export(tmp_path / "out", tokens).problems))


def test_a_record_of_another_version_is_no_problem(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    path = tmp_path / "out" / "imtok-export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"imtok": "99"}))
    assert verify_export(tmp_path / "out", tokens).ok


def test_another_token_set_is_refused(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    other = random_tokens(tmp_path / "other", units=(6, 9, 5), codebooks=2, classes=4, seed=1)
    with pytest.raises(TokensError, match="made from token set"):
        verify_export(tmp_path / "out", other)


def test_an_unfinished_export_is_refused(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    (tmp_path / "out" / "imtok-export.json").unlink()
    with pytest.raises(TokensError, match="no export"):
        verify_export(tmp_path / "out", tokens)


def test_a_partial_export_is_checked_against_the_same_units(tokens: Path, tmp_path: Path) -> None:
    (tokens / "shards" / "000" / "00000001.safetensors").unlink()
    export_tokens(tokens, tmp_path / "out", "npy", partial=True)
    assert verify_export(tmp_path / "out", tokens).images == 11


def test_the_check_stops_on_request(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    with pytest.raises(Interrupted):
        verify_export(tmp_path / "out", tokens, should_stop=lambda: True)


def test_the_benchmark_measures_formats_and_reads_them_back(
    tokens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = import_script("exports", monkeypatch)
    call_script(script, monkeypatch, tokens, "--formats", "npy", "4m", "nanogpt", "--rounds", "1", "--shuffle", "1")
    *table, last = capsys.readouterr().out.splitlines()
    facts = json.loads(last)
    assert [row.split()[0] for row in table] == ["format", "npy", "4m", "nanogpt"]
    assert (facts["images"], facts["options"]) == (20, {"shuffle": 1})
    assert all(row["equal"] for row in facts["formats"].values())
    assert facts["formats"]["nanogpt"]["bytes"] > 20 * 12 * 2
    assert facts["formats"]["npy"]["read_by"].startswith("numpy ")


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(("crops", "codebooks"), [(0, 1), (2, 1), (2, 3)])
def test_every_format_reads_back_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, crops: int, codebooks: int
) -> None:
    target = FORMATS[name]
    monkeypatch.setattr(target, "library", None)  # tests of the format read with it
    tokens = random_tokens(tmp_path / "tokens", (6, 9, 5), (2, 2), codebooks, crops=crops, classes=4)
    ids = {"offset": 5, "boi": 1, "eoi": 2, "eol": 3, "eod": 4, "label": "before", "order": "concatenated"}
    options = {"shuffle": 2, "val_fraction": 0.3, "shard_size": 6} | ids
    options = {option: value for option, value in options.items() if option not in target.refused}
    if codebooks == 1:
        options.pop("order", None)
    try:
        export_tokens(tokens, tmp_path / "out", name, ExportOptions.model_validate(options))
    except ConfigError:  # a format that holds no such set
        assert not (tmp_path / "out").exists()
        assert crops or codebooks > 1
        return
    result = verify_export(tmp_path / "out", tokens)
    assert (result.problems, result.images) == ([], 20)
