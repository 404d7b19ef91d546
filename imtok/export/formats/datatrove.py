"""`.ds` files of datatrove, which nanotron's Nanosets read: raw ids, and beside them the ends of documents.

    000000.ds           uint16 or uint32 ids
    000000.ds.index     uint64, where each image ends, counted in ids from the start of the file
    000000.ds.metadata  three lines: `tokenizer|bytes of an id`, the number of ids, and that number for people

datatrove cuts windows of `seq_len + 1` ids without regard to documents, so `seq_len` = T - 1 gives one image a window.
It reads in the order of the files. A `.ds` does not say its type: datatrove takes `token_size`. nanotron reads the
first line of the metadata; its configuration has to name that tokenizer, with `token_size_in_bytes` and `vocab_size`,
or it looks for the tokenizer on the Hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.paths import make_target, path_of
from imtok.export.rows import (
    Numbers,
    check_equal,
    check_numbers,
    check_size,
    ids_in,
    multiples,
    read_rows,
    rows_in,
    write_numbers,
    write_rows,
)
from imtok.files import atomic_writer, write_atomically


class Datatrove(Format):
    """datatrove's `.ds` files, each with its `.ds.index` and `.ds.metadata`."""

    name: ClassVar[str] = "datatrove"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16", "uint32")
    library: ClassVar[str | None] = "datatrove"
    default_images: ClassVar[int | None] = 1 << 18

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the bytes of an id, and the length with which a window is one image."""
        options = f"seq_len={plan.ids_per_image - 1}, token_size={plan.dtype.itemsize}"
        order = "" if plan.options.shuffle is not None else "; it keeps this order, which --shuffle SEED changes"
        return f'DatatroveFolderDataset("OUT/train", filename_pattern="*.ds", {options}): a window is an image{order}'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the ids of a piece, the ends of its images, and the text about it."""
        paths = [path_of(piece, suffix) for suffix in (".ds", ".ds.index", ".ds.metadata")]
        with hashed_writer(make_target(folder, paths[0])) as file:
            write_rows(file, piece, blocks, plan)
        with atomic_writer(folder / paths[1]) as file:
            write_numbers(file, _ends(piece, plan))
        write_atomically(folder / paths[2], _metadata(piece, plan))
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; index and metadata are compared with what the plan says."""
        for piece in pieces:
            path, index, metadata = (folder / path_of(piece, suffix) for suffix in (".ds", ".ds.index", ".ds.metadata"))
            check_size(index, 8 * rows_in(piece, plan))
            with index.open("rb") as file:
                check_numbers(index, file, _ends(piece, plan))
            check_size(metadata, len(_metadata(piece, plan)))
            check_equal(metadata, "text", metadata.read_bytes(), _metadata(piece, plan))
            yield from read_rows(path, piece, plan)

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back by `DatatroveFileDataset`, one window an image."""
        from datatrove.utils.dataset import DatatroveFileDataset

        for piece in pieces:
            path = str(folder / path_of(piece, ".ds"))
            windows = DatatroveFileDataset(path, plan.ids_per_image - 1, token_size=plan.dtype.itemsize)
            for first in range(0, len(windows), plan.crops):
                crops = [windows[first + crop]["input_ids"].numpy() for crop in range(plan.crops)]
                yield ReadImage(piece.split, np.stack(crops))


def _ends(piece: Piece, plan: ExportPlan) -> Iterator[Numbers]:
    return multiples(plan.ids_per_image, 1, rows_in(piece, plan) + 1, "<u8")


def _metadata(piece: Piece, plan: ExportPlan) -> bytes:
    """Return the three lines about a piece; the name of the tokenizer is imtok and the tokenizer's fingerprint."""
    count = ids_in(piece, plan)
    name = f"imtok:{plan.info.fingerprint}|{plan.dtype.itemsize}"
    return "\n".join([name, str(count), metric(count, "T")]).encode()


def metric(value: int, unit: str) -> str:
    """Return a count with three digits and the prefix of its thousand, as datatrove prints it: "25.6 MT"."""
    mantissa, exponent = f"{value:.2e}".split("e")  # rounded first, so that 999,999 is a million
    thousands, tens = divmod(int(exponent), 3)
    prefix = ("", "k", "M", "G", "T", "P", "E")[thousands]
    return f"{float(mantissa) * 10**tens:.{2 - tens}f} {prefix}{unit}"
