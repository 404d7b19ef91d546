"""MosaicML streaming's MDS: read back by its `StreamingDataset` where it is installed, and by a reader of the layout.

mosaicml-streaming needs older packages than others here: `.ci/run` runs this file in an environment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exporting import export_and_read, random_tokens
from flat_exports import assert_read, export, ids_of, key_of, pieces_of, plan_of

from imtok.errors import ConfigError, TokensError
from imtok.export.formats.mds import Mds
from imtok.export.verification import verify_export

ABSENT = "mosaicml-streaming is not installed here; .ci/run tests it in an environment of its own"


@pytest.mark.filterwarnings("ignore")  # of streaming's own
@pytest.mark.parametrize("labelled", [0, 7])
@pytest.mark.parametrize(("ids", "crops"), [(6, 1), (300, 2)])
def test_streaming_reads_every_image(tmp_path: Path, labelled: int, ids: int, crops: int) -> None:
    pytest.importorskip("streaming", reason=ABSENT)
    plan = plan_of(7, 3, ids=ids, crops=crops, dtype="int32", num_ids=1 << 20, labelled=labelled, shard_size=4)
    pieces = export(Mds, plan, tmp_path)
    assert_read(Mds().read_by_library(pieces, plan, tmp_path), pieces, plan)
    read = list(Mds().read_by_library(pieces, plan, tmp_path))
    assert [(image.key, image.label) for image in read] == [
        (image.key, image.label) for image in Mds().read(pieces, plan, tmp_path)
    ]


@pytest.mark.filterwarnings("ignore")
def test_streaming_writes_the_same_samples(tmp_path: Path) -> None:
    """The library's own writer gives the same bytes, but for the size limit in its description of the columns."""
    streaming = pytest.importorskip("streaming", reason=ABSENT)
    plan = plan_of(4, dtype="int32", labelled=4)
    [piece] = export(Mds, plan, tmp_path / "ours")
    columns = {"key": "str", "label": "int64", "tokens": "ndarray:int32"}
    with streaming.MDSWriter(out=str(tmp_path / "theirs"), columns=columns, size_limit=None) as writer:
        for number, ids in enumerate(ids_of(piece, plan)):
            label = np.int64(-1 if number % 3 == 2 else number)
            writer.write({"key": key_of("train", number), "label": label, "tokens": ids[0]})
    for name in ("shard.00000.mds", "index.json"):
        assert (tmp_path / "ours/train" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


@pytest.mark.parametrize("labelled", [0, 7])
@pytest.mark.parametrize(("ids", "crops", "dtype"), [(6, 1, "int32"), (300, 2, "int32"), (70_000, 1, "int64")])
def test_images_come_back_without_the_library(tmp_path: Path, labelled: int, ids: int, crops: int, dtype: str) -> None:
    plan = plan_of(7, 3, ids=ids, crops=crops, dtype=dtype, labelled=labelled, shard_size=4)
    pieces = export(Mds, plan, tmp_path)
    assert_read(Mds().read(pieces, plan, tmp_path), pieces, plan)
    read = [(image.key, image.label) for image in Mds().read(pieces, plan, tmp_path)]
    assert read == [
        (key_of(piece.split, number), None if number % 3 == 2 or not labelled else number)
        for piece in pieces
        for number in range(piece.first, piece.first + piece.images)
    ]


def test_tokens_are_declared_with_their_type(tmp_path: Path) -> None:
    """llm-foundry takes bytes without a declared type for int64."""
    export(Mds, plan_of(2, dtype="int32"), tmp_path)
    index = json.loads((tmp_path / "train/index.json").read_text())
    [shard] = index["shards"]
    assert index["version"] == shard["version"] == 2
    assert dict(zip(shard["column_names"], shard["column_encodings"], strict=True))["tokens"] == "ndarray:int32"
    assert Mds.dtypes[0] == "int32"


def test_shard_is_the_published_layout(tmp_path: Path) -> None:
    plan = plan_of(1, ids=2, num_ids=10, dtype="int32", labelled=1)
    export(Mds, plan, tmp_path)
    data = (tmp_path / "train/shard.00000.mds").read_bytes()
    count, start, end = np.frombuffer(data[:12], "<u4").tolist()
    config = json.loads(data[12:start])
    assert (count, end) == (1, len(data))
    assert (config["column_names"], config["column_sizes"]) == (["key", "label", "tokens"], [None, 8, None])
    key = key_of("train", 0).encode()
    sizes = len(key).to_bytes(4, "little") + (10).to_bytes(4, "little")  # of key and tokens; label has a fixed one
    tokens = bytes([1 << 2, 2]) + np.array([9, 0], "<i4").tobytes()  # one axis, its length in one byte
    assert data[start:] == sizes + key + bytes(8) + tokens


def test_shard_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bytes, and one of mds holds at most 4,294,967,295; use --shard-size 83"):
        Mds().check(plan_of(10_000_000, ids=256, dtype="int32", shard_size=10_000_000))
    Mds().check(plan_of(10_000_000, ids=256, dtype="int32"))


@pytest.mark.parametrize(
    "damage", ["count", "config", "first offset", "sample", "cut off", "index", "no index", "gone"]
)
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    plan = plan_of(5, dtype="int32")
    pieces = export(Mds, plan, tmp_path)
    shard, index = tmp_path / "train/shard.00000.mds", tmp_path / "train/index.json"
    data = bytearray(shard.read_bytes())
    places = {"count": 0, "config": 40, "first offset": 4, "sample": int.from_bytes(data[4:8], "little") + 4}
    if damage == "no index":
        index.unlink()
    elif damage == "gone":
        shard.unlink()
    elif damage == "index":
        index.write_text(index.read_text().replace("int32", "int64"))
    elif damage == "cut off":
        shard.write_bytes(data[:-1])
    else:
        data[places[damage]] ^= 1
        shard.write_bytes(data)
    with pytest.raises(TokensError, match="train"):
        list(Mds().read(pieces, plan, tmp_path))


def test_pieces_are_numbered_as_streaming_numbers_them(tmp_path: Path) -> None:
    plan = plan_of(5, dtype="int32", shard_size=2)
    export(Mds, plan, tmp_path)
    names = [f"shard.{piece.number:05d}.mds" for piece in pieces_of(plan)]
    index = json.loads((tmp_path / "train/index.json").read_text())
    assert [shard["raw_data"]["basename"] for shard in index["shards"]] == names
    assert [shard["samples"] for shard in index["shards"]] == [2, 2, 1]


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "max_seq_len=6)" in Mds().trainer_note(plan_of(5, dtype="int32"))


@pytest.mark.filterwarnings("ignore")  # of streaming's own
def test_verification_compares_every_image(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(9, 7), codebooks=2, classes=5)
    options = {"offset": 7, "boi": 1, "eol": 2, "eod": 3, "label": "before", "shuffle": 5, "val_fraction": 0.4}
    folder, plan, _, _ = export_and_read(tokens, "mds", tmp_path, shard_size=4, **options)
    assert set(plan.images) == {"train", "val"}
    result = verify_export(folder, tokens)
    assert (result.images, result.problems) == (16, [])
    assert result.compared == ["ids", "keys", "labels"]
