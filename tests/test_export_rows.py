"""Rows of ids in files: blocks that must be whole, sizes that must be exact, and bounds that need no reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flat_exports import assert_read, blocks_of, ids_of, pieces_of, plan_of

import imtok.export.rows
from imtok.errors import TokensError
from imtok.export.rows import check_numbers, largest_piece, multiples, read_rows, write_numbers, write_rows


def test_rows_come_back_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imtok.export.rows, "_CHUNK", 25)  # two images of two crops of six ids
    plan = plan_of(5, crops=2)
    [piece] = pieces_of(plan)
    with (tmp_path / "rows").open("wb") as file:
        file.write(b"head")
        write_rows(file, piece, blocks_of(piece, plan), plan)
    assert (tmp_path / "rows").read_bytes()[4:] == ids_of(piece, plan).tobytes()
    assert_read(read_rows(tmp_path / "rows", piece, plan, start=4), [piece], plan)


@pytest.mark.parametrize("change", [-1, 1])
def test_file_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    plan = plan_of(2)
    (tmp_path / "rows").write_bytes(bytes(24 + change))
    with pytest.raises(TokensError, match=f"rows: {24 + change} bytes, expected 24"):
        next(read_rows(tmp_path / "rows", pieces_of(plan)[0], plan))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    plan = plan_of(2)
    with pytest.raises(TokensError, match="rows: is missing"):
        next(read_rows(tmp_path / "rows", pieces_of(plan)[0], plan))


def test_missing_block_is_an_error(tmp_path: Path) -> None:
    plan = plan_of(5)
    [piece] = pieces_of(plan)
    with (tmp_path / "rows").open("wb") as file, pytest.raises(ValueError, match="got 5 images, expected 6"):
        write_rows(file, replace(piece, images=6), blocks_of(piece, plan), plan)


def test_ids_of_another_type_are_not_cut(tmp_path: Path) -> None:
    plan = plan_of(5, dtype="uint32")
    [piece] = pieces_of(plan)
    with (tmp_path / "rows").open("wb") as file, pytest.raises(TypeError, match="equiv"):
        write_rows(file, piece, blocks_of(piece, plan), replace(plan, dtype=np.dtype("<u2")))


def test_multiples_are_those_of_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imtok.export.rows, "_CHUNK", 3)
    arrays = list(multiples(4, 1, 9, "<u8"))
    assert [array.tolist() for array in arrays] == [[4, 8, 12], [16, 20, 24], [28, 32]]
    assert arrays[0].dtype == np.dtype("<u8")


@pytest.mark.parametrize("numbers", [[0, 4, 9], [0, 4], [0, 4, 8, 12]])
def test_other_bounds_are_refused(tmp_path: Path, numbers: list[int]) -> None:
    path = tmp_path / "bounds"
    with path.open("wb") as file:
        write_numbers(file, [np.array(numbers, "<i8")])
    with path.open("rb") as file, pytest.raises(TokensError, match="bounds"):
        check_numbers(path, file, multiples(4, 0, 3, "<i8"))


@pytest.mark.parametrize(("shard_size", "default", "images"), [(None, None, 9), (None, 5, 5), (3, 5, 3), (20, 5, 9)])
def test_largest_piece_follows_options(shard_size: int | None, default: int | None, images: int) -> None:
    assert largest_piece(plan_of(9, 4, shard_size=shard_size), default) == images
