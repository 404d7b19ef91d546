"""Rows of ids in files: blocks that must be whole, sizes that must be exact, and bounds that need no reading."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, export_and_read, random_tokens
from flat_exports import assert_read, blocks_of, export, files_in, ids_of, pieces_of, plan_of

import imtok.export.formats.olmo
import imtok.export.rows
from imtok.errors import ConfigError, Interrupted, TokensError
from imtok.export.format import Block
from imtok.export.formats import FORMATS
from imtok.export.formats.npy import Npy
from imtok.export.limits import check_capacity
from imtok.export.rows import check_numbers, multiples, read_rows, write_numbers, write_rows

FLAT = ("automodel", "torchtitan", "datatrove", "olmo", "litdata", "mds")


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
    with pytest.raises(TokensError, match="rows: missing, expected a file of 24 bytes"):
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
def test_a_file_that_would_hold_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch, shard_size: int | None, default: int | None, images: int
) -> None:
    monkeypatch.setattr(Npy, "default_images", default)
    plan, found = plan_of(9, 4, shard_size=shard_size), 2 + 6 * images
    check_capacity(Npy(), plan, "ids", each=6, most=found, other="olmo", beside=2)
    message = f"would hold {found} ids, and one of npy holds at most {found - 1}; use --shard-size {images - 1} or"
    with pytest.raises(ConfigError, match=message):
        check_capacity(Npy(), plan, "ids", each=6, most=found - 1, other="olmo", beside=2)


@pytest.mark.parametrize("name", FLAT)
def test_same_images_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    plan = plan_of(7, 3, crops=2, dtype=FORMATS[name].dtypes[-1], labelled=5, shard_size=4)
    for folder in ("a", "b"):
        export(FORMATS[name], plan, tmp_path / folder)
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    for path in files_in(tmp_path / "a"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize("name", FLAT)
def test_stopped_piece_leaves_no_file(tmp_path: Path, name: str) -> None:
    plan = plan_of(7, dtype=FORMATS[name].dtypes[-1])
    [piece] = pieces_of(plan)

    def stopped() -> Iterator[Block]:
        yield next(blocks_of(piece, plan))
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        FORMATS[name]().write(piece, stopped(), plan, tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", FLAT)
def test_memory_does_not_grow_with_images(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imtok.export.rows, "_CHUNK", 1024)
    monkeypatch.setattr(imtok.export.formats.olmo, "_LINES", 64)
    block = np.zeros((64, 1, 256), FORMATS[name].dtypes[-1])
    keys = ["key"] * 64

    def peak(images: int) -> int:
        plan = plan_of(images, ids=256, dtype=FORMATS[name].dtypes[-1])
        [piece] = pieces_of(plan)
        blocks = (Block("train", first, keys, block, None) for first in range(0, images, 64))
        tracemalloc.start()
        try:
            FORMATS[name]().write(piece, blocks, plan, tmp_path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64)
    ids_bytes = block[0].nbytes * (2048 - 256)
    assert peak(2048) - peak(256) < ids_bytes / 10


@pytest.mark.parametrize("crops", [0, 2])
@pytest.mark.parametrize(
    ("name", "library"), [*((name, False) for name in FLAT), ("datatrove", True), ("litdata", True)]
)
def test_a_token_set_comes_back_from_its_pieces(tmp_path: Path, name: str, library: bool, crops: int) -> None:
    if library:
        pytest.importorskip(name, reason=f"{name} is not installed")
    tokens = random_tokens(tmp_path / "tokens", classes=5, crops=crops)
    _, _, pieces, images = export_and_read(tokens, name, tmp_path, library=library, shard_size=4)
    assert len(pieces) == 3
    check_equal(tokens, images, keys=name == "mds", labels=name == "mds")
