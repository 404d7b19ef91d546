"""Parquet files, read back by datasets and pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import load_dataset
from export_pieces import Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import TokensError
from imtok.export.formats import parquet
from imtok.export.formats.parquet import Parquet
from imtok.tokens import open_tokens

EXPORT = Exporting(Parquet(), "int32", class_names=("cat", "dog", "eel"))


@pytest.mark.parametrize(("crops", "labelled"), [(1, True), (3, True), (1, False)])
def test_rows_are_read_back_by_datasets(tmp_path: Path, crops: int, labelled: bool) -> None:
    export = EXPORT.but(crops=crops, labelled=labelled)
    export.write(tmp_path)
    export.check(export.read_by_library(tmp_path))
    export.check(export.read(tmp_path))


def test_the_folder_is_a_data_set_with_its_splits(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", (40,), classes=3)
    folder = export_and_read(tokens, "parquet", tmp_path, val_fraction=0.25)[0]
    found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "validation"}
    assert sum(map(len, found.values())) == 40
    keys = {row["key"]: row["input_ids"] for split in found.values() for row in split}
    assert keys == {key: codes.reshape(-1).tolist() for key, codes in open_tokens(tokens)}


def test_the_schema_holds_types_and_origin(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    schema = pyarrow.parquet.read_schema(tmp_path / "data/train-00000-of-00002.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "key": "string",
        "input_ids": "list<element: int32 not null>",
        "height": "int32",
        "width": "int32",
        "label": "int64",
    }
    facts = json.loads(schema.metadata[b"imtok"])
    assert facts["fingerprint"] == "f" * 64
    assert (facts["grid"], facts["codebook_size"], facts["class_names"]) == ([2, 3], 1000, ["cat", "dog", "eel"])


def test_crops_are_rows_with_their_boxes(tmp_path: Path) -> None:
    export = EXPORT.but(crops=2)
    export.write(tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / "data/train-00000-of-00002.parquet").to_pydict()
    block = export.block(0, 5)
    assert block.crops is not None
    assert rows["crop"] == [0, 1] * 5
    assert rows["crop_box"] == block.crops.reshape(10, 5).tolist()
    assert rows["key"][:3] == ["n/0.png", "n/0.png", "n/1.png"]


def test_an_image_without_a_label_has_a_null(tmp_path: Path) -> None:
    export = EXPORT.but(shard_size=None)
    block = export.block(0, 8)
    assert block.labels is not None
    block.labels[2] = -1
    (piece,) = export.pieces
    export.writer.write(piece, [block], export.plan, tmp_path)
    images = list(export.writer.read(export.pieces, export.plan, tmp_path))
    assert images[2].label is None
    assert images[3].label == block.labels[3]


def test_row_groups_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_IDS", 4 * 6)
    export = EXPORT.but(shard_size=None)
    export.write(tmp_path / "blocks")
    (piece,) = export.pieces
    export.writer.write(piece, [export.block(0, 8)], export.plan, tmp_path / "whole")
    name = "data/train-00000-of-00001.parquet"
    assert (tmp_path / "blocks" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert pyarrow.parquet.ParquetFile(tmp_path / "blocks" / name).num_row_groups == 2


@pytest.mark.parametrize("size", [0, 10, 300])
def test_a_cut_file_is_named(tmp_path: Path, size: int) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TokensError, match="train-00001-of-00002"):
        EXPORT.read(tmp_path)


@pytest.mark.parametrize("crops", [0, 2])
def test_a_token_set_goes_through_tables_unharmed(tmp_path: Path, crops: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=5, crops=crops)
    for library in (False, True):
        check_equal(tokens, export_and_read(tokens, "parquet", tmp_path, library=library, shard_size=4)[3])
