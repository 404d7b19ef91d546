"""`.bin` files of llm.c and modded-nanogpt: a header, then the ids of all images.

    int32[256]  [20240520, 1, number of ids, 0 ...] before uint16 ids, the variant of GPT-2
                [20240801, 7, number of ids, 0 ...] before uint32 ids, the variant of Llama 3
    the ids, from byte 1024

llm.c's `dataloader_load_shard_` demands the exact size of each file, and refuses one that is shorter than a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from imtok.export.bin_header import make_header, read_after_header
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.limits import check_capacity
from imtok.export.rows import Numbers, ids_in, write_rows

VARIANTS = {"uint16": (20240520, 1), "uint32": (20240801, 7)}  # magic number and version by type
MOST_IDS = 2**31 - 1  # of a file, which the header counts in int32


class LlmC(Format):
    """llm.c: files with a header that counts the ids."""

    name: ClassVar[str] = "llmc"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16", "uint32")
    default_images: ClassVar[int | None] = 1 << 17

    def check(self, plan: ExportPlan) -> None:
        """Raise ConfigError where a file would hold more ids than its header can count."""
        check_capacity(self, plan, "ids", each=plan.crops * plan.ids_per_image, most=MOST_IDS, other="megatron")

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the patterns of the files, and the vocabulary that the source fixes."""
        return (
            f"-i 'OUT/train_*.bin' -j 'OUT/val_*.bin'; the model's vocab_size has to be {plan.num_ids} or more; "
            "modded-nanogpt looks for id 50256 at the beginning of documents"
        )

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write one file."""
        with hashed_writer(folder / _name(piece)) as file:
            file.write(_header(piece, plan).data)
            write_rows(file, piece, blocks, plan)
        return [_name(piece)]

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; header and size are compared with what the plan says."""
        for piece in pieces:
            yield from read_after_header(folder / _name(piece), _header(piece, plan), piece, plan)


def _name(piece: Piece) -> str:
    return f"{piece.split}_{piece.number:06d}.bin"


def _header(piece: Piece, plan: ExportPlan) -> Numbers:
    return make_header(*VARIANTS[plan.dtype.name], ids_in(piece, plan))
