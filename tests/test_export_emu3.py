"""Emu3's files, read back as its data set reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_pieces import INFO, Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export.formats.emu3 import Emu3

EXPORT = Exporting(Emu3(), "int64", class_names=("cat", "dog", "eel"))


def item(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Read a file as Emu3FeatureDataset does: the list names a folder, relative to where the trainer runs."""
    monkeypatch.chdir(folder)
    listed = json.loads(Path("list/train.json").read_text())
    content: dict[str, Any] = torch.load(os.path.join(listed["prefix"], listed["path_list"][number]))  # noqa: PTH118
    return content


def prompt(codes: Any) -> str:
    """Write codes as the trainer's format_image_prompt and to_imgstr do."""
    height, width = codes.shape
    rows = ["".join(f"<|visual token {code:0>6d}|>" for code in row) for row in codes]
    return f"BOI{height}*{width}IMG" + "EOL".join(rows) + "EOLEOFEOI"


def test_the_trainer_makes_its_sequence_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EXPORT.write(tmp_path)
    block = EXPORT.block(0, 8)
    assert block.labels is not None
    for number in range(8):
        found = item(tmp_path, number, monkeypatch)
        codes = block.ids[number, 0]
        rows = ["".join(f"<|visual token {code:06}|>" for code in row) for row in codes.reshape(2, 3).tolist()]
        assert prompt(found["images"]) == f"BOI2*3IMG{rows[0]}EOL{rows[1]}EOLEOFEOI"
        assert found["name"] == f"n/{number}.png"
        assert found["texts"] == EXPORT.class_names[block.labels[number]]


@pytest.mark.parametrize("crops", [1, 2])
def test_images_are_read_back(tmp_path: Path, crops: int) -> None:
    export = EXPORT.but(crops=crops, split="val")
    export.write(tmp_path)
    export.check(export.read(tmp_path), labels=False)


def test_images_without_a_named_class_have_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, export in enumerate((EXPORT.but(labelled=False), EXPORT.but(class_names=()))):
        export.write(tmp_path / str(place))
        assert item(tmp_path / str(place), 0, monkeypatch)["texts"] == ""


def test_equal_keys_are_two_files(tmp_path: Path) -> None:
    export = EXPORT.but(keys=("a.png",) * 5)
    export.write(tmp_path)
    export.check(export.read(tmp_path), labels=False)


def test_a_file_holds_one_image_alone(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    assert max(path.stat().st_size for path in tmp_path.rglob("*.pth")) < 3000


def test_several_codebooks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 codes at each place of the grid, and Emu3 reads 1.*npy"):
        Emu3().check(EXPORT.but(info=INFO.model_copy(update={"num_codebooks": 4})).plan)
    Emu3().check(EXPORT.plan)


def test_a_vocabulary_beyond_that_of_the_trainer_is_told() -> None:
    large = EXPORT.but(info=INFO.model_copy(update={"codebook_size": 32_769})).plan
    assert "32768 visual tokens, so it needs 32769" in Emu3().trainer_note(large)
    assert "visual" not in Emu3().trainer_note(EXPORT.plan)


@pytest.mark.parametrize("name", ["list/train.json", "feature/train/000000/3.pth"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    EXPORT.write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TokensError, match=Path(name).name.replace(".", r"\.")):
        EXPORT.read(tmp_path)


def test_a_token_set_goes_through_the_files_unharmed(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=3)
    images = export_and_read(tokens, "emu3", tmp_path)[3]
    check_equal(tokens, images, labels=False)
    np.testing.assert_array_equal(images[0].ids.shape, (1, 6))
