"""Chunks of LitData, for its `TokensLoader`: each image is an item, and each chunk holds whole images.

    chunk-0-NUMBER.bin  uint32 N items, uint32[N + 1] offsets in bytes, then the ids of all items, uint16 or uint32
    index.json          the chunks with their bytes, items and ids, and the type: numpy's number 5 or 6

`TokensLoader(block_size=B)` cuts the ids of a chunk into blocks and drops what is left at its end. With B = T, or a
divisor of T, nothing is left; with another B up to B - 1 ids of every chunk are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.hashing import hashed_writer
from imtok.export.limits import check_capacity
from imtok.export.paths import make_target
from imtok.export.rows import (
    check_equal,
    check_json,
    check_size,
    ids_in,
    multiples,
    read_rows,
    rows_in,
    write_numbers,
    write_rows,
)
from imtok.files import write_atomically

INDEX = "index.json"
MOST_BYTES = 2**32 - 1  # of a chunk: its offsets are uint32
_TYPES = {"uint16": 5, "uint32": 6}  # numbers of numpy's types in LitData's list


class LitData(Format):
    """LitData's chunks for `TokensLoader`, a data set for each split."""

    name: ClassVar[str] = "litdata"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16", "uint32")
    library: ClassVar[str | None] = "litdata"
    default_images: ClassVar[int | None] = 1 << 16

    def check(self, plan: ExportPlan) -> None:
        """Raise ConfigError where a chunk would have more bytes than its offsets can count."""
        row = 4 + plan.ids_per_image * plan.dtype.itemsize
        check_capacity(self, plan, "bytes", each=plan.crops * row, most=MOST_BYTES, other="olmo", beside=8)

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the block size that leaves no ids over at the end of a chunk."""
        loader = f"TokensLoader(block_size={plan.ids_per_image})"
        return f'StreamingDataset("OUT/train", item_loader={loader}): other sizes drop ids at the end of each chunk'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the chunk of a piece."""
        path = _chunk(piece)
        with hashed_writer(make_target(folder, path)) as file:
            file.write(np.uint32(rows_in(piece, plan)).tobytes())
            for offsets in multiples(plan.ids_per_image * plan.dtype.itemsize, 0, rows_in(piece, plan) + 1, "<u4"):
                write_numbers(file, [offsets + np.uint32(_header_bytes(piece, plan))])
            write_rows(file, piece, blocks, plan)
        return [path]

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the index of each split."""
        paths = []
        for split in plan.images:
            index = _index(pieces, plan, split)
            write_atomically(folder / split / INDEX, (json.dumps(index, sort_keys=True) + "\n").encode())
            paths.append(f"{split}/{INDEX}")
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; index, counts and offsets are compared with what the plan says."""
        for split in plan.images:
            check_json(folder / split / INDEX, _index(pieces, plan, split))
        for piece in pieces:
            _check_offsets(folder / _chunk(piece), piece, plan)
            yield from read_rows(folder / _chunk(piece), piece, plan, start=_header_bytes(piece, plan))

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back by `StreamingDataset` with `TokensLoader(block_size=T)`."""
        from litdata import StreamingDataset, TokensLoader

        del pieces
        for split in plan.images:
            loader = TokensLoader(block_size=plan.ids_per_image)
            items = StreamingDataset(str(folder / split), item_loader=loader, shuffle=False)
            for first in range(0, len(items), plan.crops):
                yield ReadImage(split, np.stack([items[first + crop] for crop in range(plan.crops)]))


def _chunk(piece: Piece) -> str:
    return f"{piece.split}/chunk-0-{piece.number}.bin"


def _header_bytes(piece: Piece, plan: ExportPlan) -> int:
    return 4 + 4 * (rows_in(piece, plan) + 1)


def _chunk_bytes(piece: Piece, plan: ExportPlan) -> int:
    return _header_bytes(piece, plan) + ids_in(piece, plan) * plan.dtype.itemsize


def _index(pieces: Sequence[Piece], plan: ExportPlan, split: Split) -> dict[str, object]:
    """Return the content of `index.json`; LitData's caches of remote data go by `updated_at`, here a hash."""
    made_of = plan.info.to_bytes() + json.dumps(plan.options.model_dump(), sort_keys=True).encode()
    chunks = [
        {
            "chunk_bytes": _chunk_bytes(piece, plan),
            "chunk_size": rows_in(piece, plan),
            "dim": ids_in(piece, plan),
            "filename": Path(_chunk(piece)).name,
        }
        for piece in pieces
        if piece.split == split
    ]
    config = {
        "chunk_bytes": None,
        "chunk_size": max(rows_in(piece, plan) for piece in pieces if piece.split == split),
        "compression": None,
        "data_format": [f"no_header_numpy:{_TYPES[plan.dtype.name]}"],
        "data_spec": json.dumps([1, {"type": None, "context": None, "children_spec": []}]),  # one array, as torch says
        "encryption": None,
        "item_loader": "TokensLoader",
    }
    return {"chunks": chunks, "config": config, "updated_at": hashlib.sha256(made_of).hexdigest()[:16]}


def _check_offsets(path: Path, piece: Piece, plan: ExportPlan) -> None:
    check_size(path, _chunk_bytes(piece, plan))
    with path.open("rb") as file:
        check_equal(path, "number of items", int(np.fromfile(file, "<u4", 1)[0]), rows_in(piece, plan))
        for offsets in multiples(plan.ids_per_image * plan.dtype.itemsize, 0, rows_in(piece, plan) + 1, "<u4"):
            if not np.array_equal(
                np.fromfile(file, "<u4", len(offsets)), offsets + np.uint32(_header_bytes(piece, plan))
            ):
                raise TokensError(f"{path}: offsets of items are not those of images; the file is damaged")
