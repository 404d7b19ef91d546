"""`.npy` files of OLMo-core, which are raw ids in spite of their name, and `.csv.gz` with the bounds of documents.

OLMo-core maps the file as it is: a header as numpy writes it would be read as tokens. The file does not say its
type; OLMo-core takes the narrowest of uint8, uint16 and uint32 that holds its tokenizer's vocabulary, unless `dtype`
is given in its configuration. `.csv.gz` has a line `start,end` for each image, counted in ids. OLMo-core ignores ids
at the end of a file that do not fill a sequence; files hold whole images, so none is lost where T is a multiple of it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from imtok.errors import TokensError
from imtok.export.decimal_text import pair_lines
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.paths import make_target, path_of
from imtok.export.rows import read_rows, rows_in, write_rows
from imtok.files import atomic_writer

_LINES = 1 << 16  # in memory at once


class Olmo(Format):
    """OLMo-core: raw `.npy` files with their bounds of documents."""

    name: ClassVar[str] = "olmo"
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16", "uint32")
    default_images: ClassVar[int | None] = 1 << 18

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the type, which the files do not state, and the length that leaves no ids over."""
        options = f"dtype={plan.dtype.name}, sequence_length={plan.ids_per_image}"
        return f'NumpyFSLDatasetConfig(paths=["OUT/train/*.npy"], expand_glob=True, {options}): an instance is an image'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the ids of a piece, and the bounds of its images."""
        paths = [path_of(piece, ".npy"), path_of(piece, ".csv.gz")]
        with hashed_writer(make_target(folder, paths[0])) as file:
            write_rows(file, piece, blocks, plan)
        with (
            atomic_writer(folder / paths[1]) as file,
            # Without name and time in it, so that the same images give the same bytes.
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        ):
            for lines in _bounds(piece, plan):
                packed.write(lines)
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; bounds are compared with what the plan says."""
        for piece in pieces:
            _check_bounds(folder / path_of(piece, ".csv.gz"), piece, plan)
            yield from read_rows(folder / path_of(piece, ".npy"), piece, plan)


def _bounds(piece: Piece, plan: ExportPlan) -> Iterator[bytes]:
    """Yield the lines of `.csv.gz`, some at a time."""
    rows = rows_in(piece, plan)
    for first in range(0, rows, _LINES):
        yield pair_lines(np.arange(first, min(first + _LINES, rows) + 1) * plan.ids_per_image)


def _check_bounds(path: Path, piece: Piece, plan: ExportPlan) -> None:
    try:
        with gzip.open(path, "rb") as file:
            same = all(file.read(len(lines)) == lines for lines in _bounds(piece, plan)) and not file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise TokensError(f"{path}: cannot be read ({error}); the file is damaged or missing") from error
    if not same:
        raise TokensError(f"{path}: bounds of documents are not multiples of an image's ids; the file is damaged")
