"""Plain NumPy: one array of ids for each piece, and keys and labels beside it, for `numpy.load(..., mmap_mode="r")`.

    train-00000-of-00002.npy         ids (n, T), or (n, A, T) of a set with crops
    train-00000-of-00002.labels.npy  int64 (n,), -1 where an image has none; where the set has labels
    train-00000-of-00002.keys.txt    n lines of UTF-8, a backslash before a line feed or backslash within a key

Where a split is one piece, its files are called `train.npy` and so on.
"""

# Axes: n images of a piece, A crops of an image, T ids of an image.

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.paths import stem_of
from imtok.tokens.shard import NO_LABEL


class Npy(Format):
    """Arrays of ids with keys and labels beside them."""

    name: ClassVar[str] = "npy"
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32", "int16", "int32", "int64")
    library: ClassVar[str | None] = "numpy"

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the array of a piece, its keys, and its labels where the set has some."""
        stem, labelled = stem_of(piece), plan.labelled > 0
        names = [f"{stem}.npy", f"{stem}.keys.txt", *([f"{stem}.labels.npy"] if labelled else [])]
        with ExitStack() as files:
            ids, keys, *labels = (files.enter_context(hashed_writer(folder / name)) for name in names)
            ids.write(_header(plan.dtype, _shape(piece, plan)))
            for file in labels:
                file.write(_header(np.dtype("<i8"), (piece.images,)))
            for block in blocks:
                ids.write(np.ascontiguousarray(block.ids).data)
                keys.write("".join(f"{_escaped(key)}\n" for key in block.keys).encode())
                for file in labels:
                    assert block.labels is not None
                    file.write(block.labels.astype("<i8").data)
        return names

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the arrays by their layout alone."""
        for piece in pieces:
            ids = _mapped(folder / f"{stem_of(piece)}.npy", plan.dtype, _shape(piece, plan))
            labels = (
                _mapped(folder / f"{stem_of(piece)}.labels.npy", np.dtype("<i8"), (piece.images,))
                if plan.labelled
                else None
            )
            yield from _images(piece, plan, ids, labels, folder)

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the arrays by `numpy.load`."""
        for piece in pieces:
            ids = np.load(folder / f"{stem_of(piece)}.npy", mmap_mode="r")
            labels = np.load(folder / f"{stem_of(piece)}.labels.npy", mmap_mode="r") if plan.labelled else None
            yield from _images(piece, plan, ids, labels, folder)


def _images(
    piece: Piece, plan: ExportPlan, ids: npt.NDArray[Any], labels: npt.NDArray[Any] | None, folder: Path
) -> Iterator[ReadImage]:
    if len(ids) != piece.images or (labels is not None and len(labels) != piece.images):
        raise TokensError(f"{folder / stem_of(piece)}: {len(ids)} rows of ids, expected {piece.images}; export again")
    ids = ids.reshape(-1, plan.crops, plan.ids_per_image)
    for row, key in enumerate(_keys(folder / f"{stem_of(piece)}.keys.txt", piece.images)):
        label = None if labels is None or labels[row] == NO_LABEL else int(labels[row])
        yield ReadImage(piece.split, ids[row], key, label)


def _shape(piece: Piece, plan: ExportPlan) -> tuple[int, ...]:
    crops = (plan.crops,) if plan.crops > 1 else ()
    return (piece.images, *crops, plan.ids_per_image)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of an array file, version 1 of the format."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return file.getvalue()


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Map an array file whose header and size have to be those that this module writes."""
    header = _header(dtype, shape)
    size = len(header) + math.prod(shape) * dtype.itemsize
    with path.open("rb") as file:
        found = file.read(len(header))
    if found != header or path.stat().st_size != size:
        raise TokensError(
            f"{path}: {path.stat().st_size:,} bytes, expected {size:,}: {dtype.name} {list(shape)} and its header; "
            "export again"
        )
    return np.memmap(path, dtype, "r", len(header), shape)


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace("\n", "\\n") if "\\" in key or "\n" in key else key


def _keys(path: Path, count: int) -> Iterator[str]:
    """Read the keys line by line; raises TokensError unless there are as many as images."""
    with path.open("rb") as file:
        for number in range(count):
            line = file.readline()
            if line[-1:] != b"\n":
                raise TokensError(f"{path}: {number} keys, expected {count}; export again")
            yield re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], line[:-1].decode())
        if file.read(1):
            raise TokensError(f"{path}: more than {count} keys; export again")
