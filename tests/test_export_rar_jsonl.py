"""RAR's lines, read back as 1d-tokenizer reads them."""

from __future__ import annotations

import json
import linecache
from pathlib import Path

import numpy as np
import pytest
from export_pieces import Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export.decimal_text import DecimalLines
from imtok.export.formats.rar_jsonl import RarJsonl

EXPORT = Exporting(RarJsonl(), "int32", shard_size=None)


def items(path: Path) -> list[tuple[int, list[int]]]:
    """Read a file as PretoeknizedDataSetJSONL does, which counts its lines and takes each by its number."""
    with path.open() as file:
        count = sum(1 for _ in file)
    found = [json.loads(linecache.getline(str(path), number + 1).strip()) for number in range(count)]
    return [(item["class_id"], item["tokens"]) for item in found]


def test_lines_are_read_back_as_the_trainer_reads_them(tmp_path: Path) -> None:
    assert EXPORT.write(tmp_path) == ["train.jsonl"]
    EXPORT.check(EXPORT.read(tmp_path), keys=False)
    block = EXPORT.block(0, 8)
    assert block.labels is not None
    assert items(tmp_path / "train.jsonl") == list(zip(block.labels.tolist(), block.ids[:, 0].tolist(), strict=True))


def test_each_crop_is_a_line_with_the_class(tmp_path: Path) -> None:
    export = EXPORT.but(crops=3)
    export.write(tmp_path)
    export.check(export.read(tmp_path), keys=False)
    block = export.block(0, 8)
    found = items(tmp_path / "train.jsonl")
    assert len(found) == 24
    assert [tokens for _, tokens in found] == block.ids.reshape(24, -1).tolist()


def test_all_lines_have_one_length(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    assert {len(tokens) for _, tokens in items(tmp_path / "train.jsonl")} == {6}


def test_files_of_a_cut_split_join_to_the_whole(tmp_path: Path) -> None:
    EXPORT.write(tmp_path / "whole")
    export = EXPORT.but(shard_size=5)
    names = export.write(tmp_path / "cut")
    assert names == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]
    joined = b"".join((tmp_path / "cut" / name).read_bytes() for name in names)
    assert joined == (tmp_path / "whole/train.jsonl").read_bytes()
    export.check(export.read(tmp_path / "cut"), keys=False)


def test_an_image_without_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 of 8 images have a label"):
        RarJsonl().check(EXPORT.but(labelled=False).plan)


@pytest.mark.parametrize("damage", ["lines", "more", "json", "length"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "train.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "lines": lines[:-1],
        "more": [*lines, lines[0]],
        "json": [*lines[:-1], lines[-1][:9]],
        "length": [*lines[:-1], b'{"class_id":1,"tokens":[1,2]}\n'],
    }[damage]
    path.write_bytes(b"".join(changed))
    with pytest.raises(TokensError, match=r"train\.jsonl"):
        EXPORT.read(tmp_path)


@pytest.mark.parametrize("num_ids", [1, 2, 10, 11, 1000, 2**18, 2**18 + 1, 2**31])
def test_lines_of_ids_become_decimal_text(num_ids: int) -> None:
    ids = np.random.default_rng(0).integers(0, num_ids, (70, 1000))
    ids[0, :3] = 0, num_ids - 1, num_ids // 2
    begins = [b"%d:" % number for number in range(70)]
    expected = [f"{number}:{','.join(map(str, row))};" for number, row in enumerate(ids.tolist())]
    assert b"".join(DecimalLines(num_ids)(begins, ids, b";")).decode() == "".join(expected)


@pytest.mark.parametrize("crops", [0, 2])
def test_a_token_set_goes_through_lines_unharmed(tmp_path: Path, crops: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=5, crops=crops)
    check_equal(tokens, export_and_read(tokens, "rar-jsonl", tmp_path)[3], keys=False)
