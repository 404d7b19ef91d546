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
    try:
        export_tokens(tokens, tmp_path / "out", name, ExportOptions.model_validate(options))
    except ConfigError:  # a format that holds no such set
        assert not (tmp_path / "out").exists()
        assert crops or codebooks > 1
        return
    result = verify_export(tmp_path / "out", tokens)
    assert (result.problems, result.images) == ([], 20)
