"""nanoGPT's `train.bin` and `val.bin`: uint16 ids of all images one after the other, without a header.

    meta.pkl   {"vocab_size": ids}, which nanoGPT's `train.py` reads
    meta.json  the same for whoever runs no pickles, and the ids of an image

`get_batch` of `train.py` draws windows from anywhere, so a window begins within an image as a rule; special ids around
each image tell the model where it stands.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.rows import check_equal, read_rows, write_rows
from imtok.files import write_atomically


class NanoGPT(Format):
    """nanoGPT: one file a split, and the size of the vocabulary."""

    name: ClassVar[str] = "nanogpt"
    dtypes: ClassVar[tuple[str, ...]] = ("uint16",)
    refused: ClassVar[frozenset[str]] = frozenset({"shard_size"})

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return what train.py takes from meta.pkl, and what it lacks."""
        missing = "" if "val" in plan.images else "; train.py reads val.bin too, which --val-fraction makes"
        return f"vocab_size {plan.num_ids} in meta.pkl; --block_size={plan.ids_per_image} is one image{missing}"

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the file of a split."""
        with hashed_writer(folder / _name(piece)) as file:
            write_rows(file, piece, blocks, plan)
        return [_name(piece)]

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the size of the vocabulary."""
        del pieces
        files = _meta(plan)
        for name, data in files.items():
            write_atomically(folder / name, data)
        return list(files)

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; the pickle is compared with what it has to be, and never run."""
        for name, data in _meta(plan).items():
            check_equal(folder / name, "content", _content(folder / name), data)
        for piece in pieces:
            yield from read_rows(folder / _name(piece), piece, plan)


def _name(piece: Piece) -> str:
    return f"{piece.split}.bin"


def _meta(plan: ExportPlan) -> dict[str, bytes]:
    facts = {"vocab_size": plan.num_ids}
    text = json.dumps(facts | {"ids_per_image": plan.ids_per_image}, indent=2) + "\n"
    return {"meta.pkl": pickle.dumps(facts, protocol=4), "meta.json": text.encode()}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise TokensError(f"{path}: missing; export the tokens again") from error
