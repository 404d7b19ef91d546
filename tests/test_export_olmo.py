"""OLMo-core's `.npy`: read back by a reader of raw ids and of bounds of documents, as `data/utils.py` reads them."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flat_exports import assert_read, export, ids_of, plan_of

from imtok.errors import TokensError
from imtok.export.decimal_text import pair_lines
from imtok.export.formats.olmo import Olmo


def load_array_slice(path: Path, start: int, end: int, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """The ids [start, end) as OLMo-core reads them: bytes at a place, of a type that the caller knows."""
    size = dtype(0).itemsize
    return np.frombuffer(path.read_bytes()[start * size : end * size], dtype)


def document_indices(path: Path) -> list[tuple[int, int]]:
    """The bounds of documents as OLMo-core reads them from the file beside."""
    with gzip.open(path.with_name(path.name.replace(".npy", ".csv.gz")), "rt") as file:
        return [(int(start), int(end)) for start, end in (line.split(",") for line in file)]


@pytest.mark.parametrize(
    ("dtype", "num_ids"), [(np.uint8, 1 << 8), (np.uint16, 1 << 16), (np.uint32, 1 << 20)], ids=["u8", "u16", "u32"]
)
@pytest.mark.parametrize("crops", [1, 2])
def test_documents_are_images(tmp_path: Path, dtype: type[np.unsignedinteger], num_ids: int, crops: int) -> None:
    plan = plan_of(7, 3, dtype=dtype.__name__, num_ids=num_ids, crops=crops, shard_size=4)
    pieces = export(Olmo, plan, tmp_path)
    for piece in pieces:
        path = tmp_path / piece.split / f"{piece.number:06d}.npy"
        documents = [load_array_slice(path, start, end, dtype) for start, end in document_indices(path)]
        np.testing.assert_array_equal(documents, ids_of(piece, plan).reshape(-1, plan.ids_per_image))
    assert_read(Olmo().read(pieces, plan, tmp_path), pieces, plan)


def test_first_bytes_are_ids_not_a_header(tmp_path: Path) -> None:
    plan = plan_of(4)
    [piece] = export(Olmo, plan, tmp_path)
    assert (tmp_path / "train/000000.npy").read_bytes() == ids_of(piece, plan).tobytes()
    with pytest.raises(ValueError, match="pickled"):
        np.load(tmp_path / "train/000000.npy")


def test_narrowest_type_is_the_one_that_olmo_takes() -> None:
    """OLMo-core takes the first of these types that holds the largest id of its vocabulary."""
    assert Olmo.dtypes == ("uint8", "uint16", "uint32")


def test_sequences_of_an_image_lose_no_ids(tmp_path: Path) -> None:
    """OLMo-core ignores the end of a file that does not fill a sequence: with other lengths there is such an end."""
    plan = plan_of(7, shard_size=4)
    pieces = export(Olmo, plan, tmp_path)
    sizes = [(tmp_path / f"train/{piece.number:06d}.npy").stat().st_size // 2 for piece in pieces]
    assert [size % plan.ids_per_image for size in sizes] == [0, 0]
    assert [size % 5 for size in sizes] == [4, 3]


@pytest.mark.parametrize(("step", "count"), [(1, 1), (1, 2), (1, 120), (3, 400), (256, 5), (10, 11), (10**9, 40)])
def test_lines_are_the_numbers_as_text(step: int, count: int) -> None:
    bounds = np.arange(count + 1) * step
    assert pair_lines(bounds).decode() == "".join(f"{start},{end}\n" for start, end in pairwise(bounds))


def test_bounds_hold_no_time_and_no_name(tmp_path: Path) -> None:
    plan = plan_of(4)
    for name in ("a", "b"):
        export(Olmo, plan, tmp_path / name)
    data = (tmp_path / "a/train/000000.csv.gz").read_bytes()
    assert data == (tmp_path / "b/train/000000.csv.gz").read_bytes()
    assert data[3:8] == bytes(5)  # no flags, so no name, and time 0


@pytest.mark.parametrize("damage", ["another bound", "more bounds", "cut off", "no gzip file", "missing"])
def test_damaged_bounds_are_refused(tmp_path: Path, damage: str) -> None:
    plan = plan_of(5)
    pieces = export(Olmo, plan, tmp_path)
    path = tmp_path / "train/000000.csv.gz"
    data = path.read_bytes()
    lines = gzip.decompress(data)
    if damage == "missing":
        path.unlink()
    else:
        other = {
            "another bound": gzip.compress(lines.replace(b"6,12", b"6,13")),
            "more bounds": gzip.compress(lines + b"30,36\n"),
            "cut off": data[:-3],
            "no gzip file": lines,
        }
        path.write_bytes(other[damage])
    with pytest.raises(TokensError, match=r"000000\.csv\.gz"):
        next(Olmo().read(pieces, plan, tmp_path))


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "dtype=uint16, sequence_length=6)" in Olmo().trainer_note(plan_of(5))
