"""NeMo Automodel's `.bin`: read back by a reader of its header and index, as `nanogpt_dataset.py` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flat_exports import assert_read, export, ids_of, plan_of

from imtok.errors import ConfigError, TokensError
from imtok.export.formats.automodel import Automodel


def load_bin_shard(path: Path) -> np.ndarray:
    """The ids of a file as Automodel maps them: by the type that the header gives."""
    header = np.memmap(path, np.int32, "r", shape=(256,))
    assert header[:2].tolist() == [278895051, 1]
    dtype = {2: np.uint16, 4: np.uint32}[int(header[3])]
    return np.memmap(path, dtype, "r", offset=1024, shape=(int(header[2]),))


@pytest.mark.parametrize(("dtype", "num_ids"), [("uint16", 1 << 16), ("uint32", 1 << 20)])
@pytest.mark.parametrize("crops", [1, 2])
def test_images_come_back(tmp_path: Path, dtype: str, num_ids: int, crops: int) -> None:
    plan = plan_of(7, 3, dtype=dtype, num_ids=num_ids, crops=crops, shard_size=4)
    pieces = export(Automodel, plan, tmp_path)
    assert_read(Automodel().read(pieces, plan, tmp_path), pieces, plan)
    for piece in pieces:
        path = tmp_path / piece.split / f"{piece.number:06d}.bin"
        np.testing.assert_array_equal(load_bin_shard(path), ids_of(piece, plan).ravel())
        assert load_bin_shard(path).dtype == dtype


def test_index_counts_ids_not_bytes(tmp_path: Path) -> None:
    """`NanogptDataset` compares the index with positions in ids; bytes would begin samples within images."""
    plan = plan_of(4, boi=1000, num_ids=1001, crops=2)
    [piece] = export(Automodel, plan, tmp_path)
    tokens = load_bin_shard(tmp_path / "train/000000.bin")
    starts = np.fromfile(tmp_path / "train/000000.bos.idx", np.int32)
    np.testing.assert_array_equal(tokens[starts], ids_of(piece, plan)[..., 0].ravel())


def test_aligned_sequences_of_an_image_are_every_image(tmp_path: Path) -> None:
    """With `seq_len` = T - 1 a window is one image; with T it ends in the next image, and every second one is lost."""
    plan = plan_of(4)
    export(Automodel, plan, tmp_path)
    tokens = load_bin_shard(tmp_path / "train/000000.bin")
    starts = np.fromfile(tmp_path / "train/000000.bos.idx", np.int32)

    def read(seq_len: int) -> list[int]:
        found, position = [], 0
        while position + seq_len < len(tokens):
            found.append(position)
            later = starts[starts >= position + seq_len + 1]
            position = int(later[0]) if len(later) else len(tokens)
        return found

    assert read(plan.ids_per_image - 1) == [0, 6, 12, 18]
    assert read(plan.ids_per_image) == [0, 12]


def test_file_of_too_many_ids_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2,147,483,648 ids, .* at most 2,147,483,647; use --shard-size 8388607 "):
        Automodel().check(plan_of(1 << 23, ids=256, shard_size=1 << 23))
    Automodel().check(plan_of((1 << 23) - 1, ids=256, shard_size=1 << 23))
    Automodel().check(plan_of(1 << 40, ids=256))


@pytest.mark.parametrize(("field", "value"), [(0, 20240520), (1, 2), (2, 23), (3, 4)])
def test_another_header_is_refused(tmp_path: Path, field: int, value: int) -> None:
    plan = plan_of(4)
    pieces = export(Automodel, plan, tmp_path)
    data = np.memmap(tmp_path / "train/000000.bin", np.int32, "r+", shape=(256,))
    data[field] = value
    data.flush()
    with pytest.raises(TokensError, match=r"000000\.bin: header is"):
        next(Automodel().read(pieces, plan, tmp_path))


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "seq_len=5)" in Automodel().trainer_note(plan_of(5))
