"""The labels of a token folder counted, and printed by encode and info."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from making import encoded, fill, picture, tiny_tokenizer, token_folder, write_tar
from typer.testing import CliRunner, Result

from imtok.cli import app
from imtok.tokens import open_tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def imtok(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def named_tar(path: Path, *names: str) -> Path:
    """A tar of pictures, each with the name of its class in a .cls."""
    pairs = [((f"{i}.png", encoded(picture(i))), (f"{i}.cls", name.encode())) for i, name in enumerate(names)]
    return write_tar(path, [member for pair in pairs for member in pair])


def test_encode_and_info_say_where_labels_came_from(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["cat/a.png", "cat/b.png", "dog/c.png", "stray.png"])
    result = imtok("encode", tmp_path / "in", "-o", tmp_path / "t", "-t", tokenizer)
    line = "labels: class folders, 3 of 4 images, 2 classes (cat, dog)"
    assert line in result.stderr
    assert "labels: stray.png in no class folder" in result.stderr
    assert line in imtok("info", tmp_path / "t").stdout


def test_encode_is_silent_about_labels_where_none_are(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    assert "label" not in imtok("encode", tmp_path / "in", "-o", tmp_path / "t", "-t", tokenizer).stderr


def test_info_names_the_classes_of_tars(tmp_path: Path, tokenizer: Path) -> None:
    assert imtok("encode", named_tar(tmp_path / "a.tar", "dog", "cat", "dog"), "-o", tmp_path / "t", "-t", tokenizer)
    facts = json.loads(imtok("info", "--json", tmp_path / "t").stdout)
    assert facts["classes"] == {"cat": 1, "dog": 2}
    tokens = open_tokens(tmp_path / "t")
    assert [tokens.class_names[tokens.label(i) or 0] for i in range(3)] == ["dog", "cat", "dog"]


def test_mixed_numberings_end_with_1_before_anything_is_written(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["cat/a.png", "dog/b.png"])
    result = imtok("encode", tmp_path / "in", named_tar(tmp_path / "a.tar", "7"), "-o", tmp_path / "t", "-t", tokenizer)
    assert result.exit_code == 1
    assert "--labels" in result.stderr
    assert not (tmp_path / "t").exists()


def test_names_of_a_tar_copied_again_follow_the_others(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "in").mkdir()
    named_tar(tmp_path / "in/a.tar", "dog", "eel")
    whole = named_tar(tmp_path / "in/b.tar", "eel", "cat").read_bytes()
    (tmp_path / "in/b.tar").write_bytes(whole[: len(whole) // 4])
    command = "encode", tmp_path / "in", "-o", tmp_path / "t", "-t", tokenizer
    assert imtok(*command).exit_code == 1
    (tmp_path / "in/b.tar").write_bytes(whole)
    assert imtok(*command).exit_code == 0
    tokens = open_tokens(tmp_path / "t")
    assert tokens.class_names == ("dog", "eel", "cat")
    assert [tokens.label(i) for i in range(4)] == [0, 1, 1, 2]


def test_info_lists_20_classes_and_counts_the_others(tmp_path: Path) -> None:
    labels = np.arange(1200)
    folder = token_folder(tmp_path / "t", [np.zeros((1200, 2, 2), np.int64)], 4, labels=[labels])
    printed = imtok("info", folder).stdout
    assert "1200 of 1200 images".replace("1200", "1,200") in printed
    assert "1,200 classes (0, 1, 2, 3, 4, ...)" in printed
    assert "19 1 and 1,180 others" in printed
