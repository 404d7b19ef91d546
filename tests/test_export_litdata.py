"""LitData's chunks: read back by its `StreamingDataset` with `TokensLoader`, and by a reader of the layout alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exporting import export_and_read, random_tokens
from flat_exports import assert_read, export, files_in, ids_of, plan_of

from imtok.errors import ConfigError, TokensError
from imtok.export.formats.litdata import LitData
from imtok.export.verification import verify_export


@pytest.mark.parametrize(("dtype", "num_ids"), [("uint16", 1 << 16), ("uint32", 1 << 20)])
@pytest.mark.parametrize("crops", [1, 2])
def test_litdata_reads_every_image(tmp_path: Path, dtype: str, num_ids: int, crops: int) -> None:
    pytest.importorskip("litdata", reason="litdata is not installed")
    plan = plan_of(7, 3, dtype=dtype, num_ids=num_ids, crops=crops, shard_size=4)
    pieces = export(LitData, plan, tmp_path)
    files = files_in(tmp_path)
    assert_read(LitData().read_by_library(pieces, plan, tmp_path), pieces, plan)
    assert files_in(tmp_path) == files


def test_other_block_sizes_lose_the_tails_of_chunks(tmp_path: Path) -> None:
    """Chunks of 4, 4 and 1 images of 6 ids: blocks of 6 or 3 take all of them, blocks of 5 leave 4, 4 and 1 ids."""
    litdata = pytest.importorskip("litdata", reason="litdata is not installed")
    plan = plan_of(9, shard_size=4)
    export(LitData, plan, tmp_path)

    def ids_read(block_size: int) -> int:
        loader = litdata.TokensLoader(block_size=block_size)
        return block_size * len(litdata.StreamingDataset(str(tmp_path / "train"), item_loader=loader))

    assert [ids_read(size) for size in (6, 3, 5)] == [54, 54, 54 - 4 - 4 - 1]


def test_type_is_the_number_that_litdata_gives_it(tmp_path: Path) -> None:
    constants = pytest.importorskip("litdata.constants", reason="litdata is not installed")
    for dtype in LitData.dtypes:
        export(LitData, plan_of(2, dtype=dtype), tmp_path / dtype)
        [data_format] = json.loads((tmp_path / dtype / "train/index.json").read_text())["config"]["data_format"]
        assert constants._NUMPY_DTYPES_MAPPING[int(data_format.removeprefix("no_header_numpy:"))] == dtype


def test_images_come_back_without_the_library(tmp_path: Path) -> None:
    plan = plan_of(7, 3, crops=2, shard_size=4)
    pieces = export(LitData, plan, tmp_path)
    assert_read(LitData().read(pieces, plan, tmp_path), pieces, plan)


def test_chunk_is_counts_offsets_and_ids(tmp_path: Path) -> None:
    plan = plan_of(2, ids=3)
    [piece] = export(LitData, plan, tmp_path)
    data = (tmp_path / "train/chunk-0-0.bin").read_bytes()
    assert np.frombuffer(data[:16], "<u4").tolist() == [2, 16, 22, 28]
    assert data[16:] == ids_of(piece, plan).tobytes()


def test_index_of_other_tokens_has_another_stamp(tmp_path: Path) -> None:
    """LitData keeps what it fetched until the stamp of the index changes."""
    for name, offset in (("a", 0), ("b", 0), ("c", 1)):
        export(LitData, plan_of(2, offset=offset), tmp_path / name)
    a, b, c = (json.loads((tmp_path / name / "train/index.json").read_text())["updated_at"] for name in "abc")
    assert a == b != c


def test_chunk_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of litdata holds at most 4,294,967,295; use --shard-size 83"):
        LitData().check(plan_of(10_000_000, ids=256, shard_size=10_000_000))
    LitData().check(plan_of(10_000_000, ids=256))


@pytest.mark.parametrize("damage", ["count", "offset", "cut off", "index", "no index"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    plan = plan_of(5)
    pieces = export(LitData, plan, tmp_path)
    chunk, index = tmp_path / "train/chunk-0-0.bin", tmp_path / "train/index.json"
    data = bytearray(chunk.read_bytes())
    if damage == "no index":
        index.unlink()
    elif damage == "index":
        index.write_text(index.read_text().replace("numpy:5", "numpy:6"))
    elif damage == "cut off":
        chunk.write_bytes(data[:-1])
    else:
        data[0 if damage == "count" else 8] ^= 1
        chunk.write_bytes(data)
    with pytest.raises(TokensError, match="index" if "index" in damage else "chunk-0-0"):
        next(LitData().read(pieces, plan, tmp_path))


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "block_size=6)" in LitData().trainer_note(plan_of(5))


def test_verification_compares_every_image(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(9, 7), codebooks=2, classes=5)
    options = {"offset": 7, "boi": 1, "eol": 2, "eod": 3, "label": "before", "shuffle": 5, "val_fraction": 0.4}
    folder, plan, _, _ = export_and_read(tokens, "litdata", tmp_path, shard_size=4, **options)
    assert set(plan.images) == {"train", "val"}
    result = verify_export(folder, tokens)
    assert (result.images, result.problems) == (16, [])
