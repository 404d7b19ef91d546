"""torchtitan's recipe for tokenized data: read back by a reader of `tokens.bin` and `document_offsets.npy`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flat_exports import assert_read, export, files_in, ids_of, plan_of

from imtok.errors import TokensError
from imtok.export.formats.torchtitan import Torchtitan


@pytest.mark.parametrize("crops", [1, 2])
def test_documents_are_images(tmp_path: Path, crops: int) -> None:
    plan = plan_of(5, 2, crops=crops, dtype="uint32", num_ids=1 << 20)
    pieces = export(Torchtitan, plan, tmp_path)
    for piece in pieces:
        tokens = np.memmap(tmp_path / piece.split / "tokens.bin", np.uint32, "r")
        offsets = np.load(tmp_path / piece.split / "document_offsets.npy")
        documents = [tokens[start:end] for start, end in pairwise(offsets)]
        np.testing.assert_array_equal(documents, ids_of(piece, plan).reshape(-1, plan.ids_per_image))
        assert offsets.dtype == np.int64
    assert_read(Torchtitan().read(pieces, plan, tmp_path), pieces, plan)


def test_pieces_are_sources_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(5, 2, dtype="uint32", shard_size=3)
    pieces = export(Torchtitan, plan, tmp_path)
    folders = ["train-000000", "train-000001", "val"]
    assert files_in(tmp_path) == sorted(
        f"{folder}/{name}" for folder in folders for name in ("tokens.bin", "document_offsets.npy")
    )
    assert_read(Torchtitan().read(pieces, plan, tmp_path), pieces, plan)


def test_ids_of_two_bytes_are_never_written() -> None:
    """The recipe maps the file as uint32, whatever is in it."""
    assert Torchtitan.dtypes == ("uint32",)


@pytest.mark.parametrize("damage", ["another bound", "cut off", "no numpy file", "missing", "another type"])
def test_damaged_offsets_are_refused(tmp_path: Path, damage: str) -> None:
    plan = plan_of(5, dtype="uint32")
    pieces = export(Torchtitan, plan, tmp_path)
    path = tmp_path / "train/document_offsets.npy"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "another type":
        np.save(path, np.load(path).astype(np.int32))
    else:
        other = {"another bound": data[:-8] + bytes([1] * 8), "cut off": data[:-1], "no numpy file": b"offsets"}
        path.write_bytes(other[damage])
    with pytest.raises(TokensError, match=r"document_offsets\.npy"):
        next(Torchtitan().read(pieces, plan, tmp_path))


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "OUT/train/tokens.bin" in Torchtitan().trainer_note(plan_of(5, dtype="uint32"))
