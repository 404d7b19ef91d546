"""Images as rows of equally many ids, one after the other in a file: what the formats without keys share.

A crop of an image is a row of its own, so that a trainer sees it as a document of its own. Where a row begins is
known without reading: bounds of documents are multiples of T, which are written and compared a chunk at a time.
"""

# Axes: n images of a block, A crops of an image, T ids of an image, D = n A rows.

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Piece, ReadImage

Numbers = npt.NDArray[np.integer[Any]]

_CHUNK = 1 << 20  # ids or bounds in memory at once


def rows_in(piece: Piece, plan: ExportPlan) -> int:
    """Return D, the rows of a piece."""
    return piece.images * plan.crops


def ids_in(piece: Piece, plan: ExportPlan) -> int:
    """Return D T, the ids of a piece."""
    return rows_in(piece, plan) * plan.ids_per_image


def whole_blocks(piece: Piece, blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the blocks of a piece; raises ValueError unless they hold exactly its images."""
    images = 0
    for block in blocks:
        images += len(block)
        yield block
    if images != piece.images:
        raise ValueError(f"piece {piece.number} of {piece.split}: got {images} images, expected {piece.images}")


def write_rows(file: BinaryIO, piece: Piece, blocks: Iterable[Block], plan: ExportPlan) -> None:
    """Write the ids of all images in their order, without anything between them."""
    for block in whole_blocks(piece, blocks):
        # "equiv" allows another byte order alone: ids of another type would be cut to this one without a word.
        file.write(np.ascontiguousarray(block.ids.astype(plan.dtype, casting="equiv", copy=False)).data)


def read_rows(path: Path, piece: Piece, plan: ExportPlan, start: int = 0) -> Iterator[ReadImage]:
    """Read the images of a file whose ids begin at byte `start`; raises TokensError unless it has the exact size."""
    check_size(path, start + ids_in(piece, plan) * plan.dtype.itemsize)
    per_image = plan.crops * plan.ids_per_image
    step = max(1, _CHUNK // per_image)
    with path.open("rb") as file:
        file.seek(start)
        for first in range(0, piece.images, step):
            count = min(step, piece.images - first) * per_image
            ids = np.fromfile(file, plan.dtype, count).reshape(-1, plan.crops, plan.ids_per_image)  # (n, A, T)
            yield from (ReadImage(piece.split, image) for image in ids)


def check_size(path: Path, expected: int) -> None:
    """Raise TokensError unless a file has exactly `expected` bytes."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise TokensError(f"{path}: missing, expected a file of {expected:,} bytes; export again") from None
    if size != expected:
        raise TokensError(f"{path}: {size:,} bytes, expected {expected:,}; the file is damaged or was cut off")


def check_json(path: Path, expected: object) -> None:
    """Raise TokensError unless a file is there and holds this value as JSON."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TokensError(f"{path}: cannot be read ({error}); export again") from error
    check_equal(path, "content", found, expected)


def check_equal(path: Path, name: str, found: object, expected: object) -> None:
    """Raise TokensError, naming both values, where a fact in a file is not the expected one."""
    if found != expected:
        raise TokensError(f"{path}: {name} is {found!r}, expected {expected!r}; the file is damaged")


def multiples(step: int, first: int, end: int, dtype: npt.DTypeLike) -> Iterator[Numbers]:
    """Yield step * [first, end) in arrays of at most a million numbers."""
    for begin in range(first, end, _CHUNK):
        yield (np.arange(begin, min(begin + _CHUNK, end), dtype=np.int64) * step).astype(dtype)


def write_numbers(file: BinaryIO, arrays: Iterable[Numbers]) -> None:
    """Write arrays one after the other."""
    for array in arrays:
        file.write(array.data)


def check_numbers(path: Path, file: BinaryIO, arrays: Iterable[Numbers]) -> None:
    """Raise TokensError unless the rest of an open file holds these arrays, one after the other, and nothing else."""
    for array in arrays:
        found = np.frombuffer(file.read(array.nbytes), np.uint8)
        if not np.array_equal(found, array.view(np.uint8)):
            raise TokensError(f"{path}: bounds of documents are not multiples of an image's ids; the file is damaged")
    if file.read(1):
        raise TokensError(f"{path}: holds more bounds than documents; the file is damaged")
