"""`.bin` files of NeMo Automodel's `NanogptDataset`: a header that says the type, then the ids of all images.

    int32[256]  [278895051, 1, number of ids, bytes of an id, 0 ...]
    uint16 or uint32 ids, from byte 1024

Beside each file `.bos.idx` holds where each image begins, int32, counted in ids. NVIDIA's description calls them
byte positions; `NanogptDataset` compares them with positions in ids, and what it does counts here.

A worker of `NanogptDataset` that has one file alone reads a share of it, so each needs two files, or all share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from imtok.export.bin_header import make_header, read_after_header
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.limits import check_capacity
from imtok.export.paths import make_target, path_of
from imtok.export.rows import (
    Numbers,
    check_numbers,
    check_size,
    ids_in,
    multiples,
    rows_in,
    write_numbers,
    write_rows,
)
from imtok.files import atomic_writer

MAGIC = 278895051
VERSION = 1
MOST_IDS = 2**31 - 1  # of a file: the header counts them in int32, and so does the index


class Automodel(Format):
    """NeMo Automodel: nanoGPT's shards with two or four bytes an id."""

    name: ClassVar[str] = "automodel"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16", "uint32")
    default_images: ClassVar[int | None] = 1 << 17

    def check(self, plan: ExportPlan) -> None:
        """Raise ConfigError where a file would hold more ids than its header can count."""
        check_capacity(self, plan, "ids", each=plan.crops * plan.ids_per_image, most=MOST_IDS, other="olmo")

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the length with which a sample is one image, and the number of files that loses none."""
        call = f'NanogptDataset("OUT/train/*.bin", seq_len={plan.ids_per_image - 1}): a sample is an image'
        return f"{call}; have one file, or two and more for each worker of all ranks"

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the ids of a piece, and where its images begin."""
        paths = [path_of(piece, ".bin"), path_of(piece, ".bos.idx")]
        with hashed_writer(make_target(folder, paths[0])) as file:
            file.write(_header(piece, plan).data)
            write_rows(file, piece, blocks, plan)
        with atomic_writer(folder / paths[1]) as file:
            write_numbers(file, multiples(plan.ids_per_image, 0, rows_in(piece, plan), "<i4"))
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; header and index are compared with what the plan says."""
        for piece in pieces:
            index = folder / path_of(piece, ".bos.idx")
            check_size(index, 4 * rows_in(piece, plan))
            with index.open("rb") as file:
                check_numbers(index, file, multiples(plan.ids_per_image, 0, rows_in(piece, plan), "<i4"))
            yield from read_after_header(folder / path_of(piece, ".bin"), _header(piece, plan), piece, plan)


def _header(piece: Piece, plan: ExportPlan) -> Numbers:
    return make_header(MAGIC, VERSION, ids_in(piece, plan), plan.dtype.itemsize)
