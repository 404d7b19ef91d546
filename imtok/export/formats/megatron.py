"""Megatron-LM's `.bin` and `.idx`, which `megatron.core.datasets.indexed_dataset.IndexedDataset` reads.

    NAME.bin  the ids of all images
    NAME.idx  magic `MMIDIDX\\0\\0`, u64 version 1, u8 code of the type, u64 S sequences, u64 D + 1 bounds of documents;
              i32[S] ids of each sequence, i64[S] bytes before it, i64[D + 1] sequences before each document

An image is a sequence and a document of its own, and so is each crop of an augmented set. Megatron itself takes uint16
for fewer than 65500 ids and int32 from there on (`DType.optimal_dtype`), and a reader that guesses the type from the
vocabulary has to come to the same result.
"""

# Axes: S sequences of a file, D documents, here as many.

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.limits import check_capacity
from imtok.export.paths import stem_of
from imtok.export.rows import (
    Numbers,
    check_equal,
    check_numbers,
    multiples,
    read_rows,
    rows_in,
    write_numbers,
    write_rows,
)

CODES = {"uint16": 8, "int32": 4, "int64": 5}  # of types
FIRST_INT32 = 65500  # ids from which Megatron takes int32
MOST_DOCUMENTS = 2**31 - 1  # of a file, NVIDIA/Megatron-LM#1056
_CHUNK = 1 << 20  # numbers in memory at once


class Megatron(Format):
    """Megatron-LM: an index of documents beside the ids."""

    name: ClassVar[str] = "megatron"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16", "int32", "int64")
    library: ClassVar[str | None] = "megatron-core"
    trainer_folders: ClassVar[frozenset[str]] = frozenset({"cache"})  # of indices that GPTDataset makes
    id_limits: ClassVar[Mapping[str, int]] = {"uint16": FIRST_INT32 - 1}

    def check(self, plan: ExportPlan) -> None:
        """Raise ConfigError where a file would hold more documents than Megatron can count."""
        check_capacity(self, plan, "documents", each=plan.crops, most=MOST_DOCUMENTS, other="npy")

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the options of Megatron's pretrain scripts, and the id that ends a document."""
        end = plan.num_ids - 1
        if plan.options.eod == end:
            tokenizer = f"--vocab-size {end}, whose end of document is {end}"
        else:
            found = "which no document of the files has" if plan.options.eod is None else f"not {plan.options.eod}"
            tokenizer = f"--vocab-size {plan.num_ids}, whose end of document is {plan.num_ids}, {found} (--eod)"
        return f"--data-path OUT/train; --seq-length {plan.ids_per_image}; --tokenizer-type NullTokenizer {tokenizer}"

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the ids of a piece and their index."""
        names = [f"{stem_of(piece)}.bin", f"{stem_of(piece)}.idx"]
        with hashed_writer(folder / names[0]) as file:
            write_rows(file, piece, blocks, plan)
        with hashed_writer(folder / names[1]) as file:
            file.write(_header(piece, plan))
            write_numbers(file, _index(piece, plan))
        return names

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; the index is compared with what the plan says."""
        for piece in pieces:
            path, header = folder / f"{stem_of(piece)}.idx", _header(piece, plan)
            with path.open("rb") as file:
                check_equal(path, "header", file.read(len(header)), header)
                check_numbers(path, file, _index(piece, plan))
            yield from read_rows(folder / f"{stem_of(piece)}.bin", piece, plan)

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every document by `IndexedDataset`."""
        open_dataset = _indexed_dataset()
        for piece in pieces:
            documents = open_dataset(str(folder / stem_of(piece)))
            bounds = documents.document_indices
            if len(documents) != rows_in(piece, plan) or not np.array_equal(bounds, np.arange(len(documents) + 1)):
                raise TokensError(
                    f"{folder / stem_of(piece)}.idx: {len(documents):,} sequences in {len(bounds) - 1:,} documents, "
                    f"expected {rows_in(piece, plan):,} of one each; export again"
                )
            for first in range(0, len(documents), plan.crops):
                yield ReadImage(piece.split, np.stack(documents[first : first + plan.crops]))


def _indexed_dataset() -> Any:
    """Import the class without the notes of optional parts of Megatron that are not installed."""
    logged = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from megatron.core.datasets.indexed_dataset import IndexedDataset
    finally:
        logging.disable(logged)
    return IndexedDataset


def _header(piece: Piece, plan: ExportPlan) -> bytes:
    documents = rows_in(piece, plan)
    return b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, CODES[plan.dtype.name], documents, documents + 1)


def _index(piece: Piece, plan: ExportPlan) -> Iterator[Numbers]:
    """Yield lengths of sequences, bytes before each, and bounds of documents, a chunk at a time."""
    rows, row_bytes = rows_in(piece, plan), plan.ids_per_image * plan.dtype.itemsize
    for first in range(0, rows, _CHUNK):
        yield np.full(min(_CHUNK, rows - first), plan.ids_per_image, "<i4")
    yield from multiples(row_bytes, 0, rows, "<i8")
    yield from multiples(1, 0, rows + 1, "<i8")
