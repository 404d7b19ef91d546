"""The files of the recipe for tokenized data in torchtitan's `components/data/README.md`.

`tokens.bin` is the raw ids, uint32. `document_offsets.npy` is an int64 array of N + 1 numbers, where the images
begin and the last one ends, counted in ids. The recipe names one file of each, so a split is one piece
unless --shard-size says otherwise; then each piece is a folder for a source of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.paths import make_target
from imtok.export.rows import check_equal, check_numbers, multiples, read_rows, rows_in, write_numbers, write_rows
from imtok.files import atomic_writer


class Torchtitan(Format):
    """torchtitan: `tokens.bin` and `document_offsets.npy` of its recipe `PretokenizedMemmapSource`."""

    name: ClassVar[str] = "torchtitan"
    dtypes: ClassVar[tuple[str, ...]] = ("uint32",)

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the names of the files in the recipe."""
        del plan
        return 'PretokenizedMemmapSource: tokens_path="OUT/train/tokens.bin"; a document is an image'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the ids of a piece, and the bounds of its images."""
        paths = _paths(piece)
        with hashed_writer(make_target(folder, paths[0])) as file:
            write_rows(file, piece, blocks, plan)
        bounds = rows_in(piece, plan) + 1
        with atomic_writer(folder / paths[1]) as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (bounds,)}
            np.lib.format.write_array_header_1_0(file, header)
            write_numbers(file, multiples(plan.ids_per_image, 0, bounds, "<i8"))
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; bounds are compared with what the plan says."""
        for piece in pieces:
            tokens, offsets = (folder / path for path in _paths(piece))
            bounds = rows_in(piece, plan) + 1
            try:
                with offsets.open("rb") as file:
                    check_equal(offsets, "shape and type", _read_header(file), ((bounds,), "<i8"))
                    check_numbers(offsets, file, multiples(plan.ids_per_image, 0, bounds, "<i8"))
            except (FileNotFoundError, ValueError) as error:
                raise TokensError(f"{offsets}: cannot be read ({error}); export again") from error
            yield from read_rows(tokens, piece, plan)


def _paths(piece: Piece) -> list[str]:
    folder = piece.split if piece.pieces == 1 else f"{piece.split}-{piece.number:06d}"
    return [f"{folder}/tokens.bin", f"{folder}/document_offsets.npy"]


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], str]:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype.str
