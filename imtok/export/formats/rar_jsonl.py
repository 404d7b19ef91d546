"""The training set of RAR and of 1d-tokenizer's MaskGIT: JSON Lines, one line for each crop of each image.

    train.jsonl, val.jsonl    {"class_id":7,"tokens":[12,0,7]}

Read from 1d-tokenizer's `data/webdataset_reader.py` (`PretoeknizedDataSetJSONL`) and `scripts/pretokenization.py`. The
trainer reads one file and holds all of it in memory. So a split is one file unless `--shard-size` cuts it, and
`cat` joins such files.
"""

# Axes: A crops of an image, T ids of an image.

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.export.decimal_text import DecimalLines
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.limits import check_all_labelled
from imtok.export.paths import stem_of


class RarJsonl(Format):
    """Lines of a class and its tokens."""

    name: ClassVar[str] = "rar-jsonl"
    dtypes: ClassVar[tuple[str, ...]] = ("int32", "int64")
    refused: ClassVar[frozenset[str]] = frozenset({"boi", "eoi", "eol", "eod", "label", "label_offset", "dtype"})

    def check(self, plan: ExportPlan) -> None:
        """Refuse images without a label."""
        check_all_labelled(self, plan)

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the fields of 1d-tokenizer's configuration."""
        return (
            f"dataset.params.pretokenization=OUT/train.jsonl, model.vq_model.codebook_size={plan.num_ids}, "
            f"model.generator.image_seq_len={plan.ids_per_image}"
        )

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write one file of lines."""
        name = _file_name(piece)
        lines = DecimalLines(plan.num_ids)
        with hashed_writer(folder / name) as file:
            for block in blocks:
                assert block.labels is not None  # checked before
                begins = [b'{"class_id":%d,"tokens":[' % label for label in block.labels.tolist()]
                if plan.crops > 1:
                    begins = [begin for begin in begins for _ in range(plan.crops)]
                file.writelines(lines(begins, block.ids.reshape(len(begins), -1), b"]}\n"))
        return [name]

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the lines as JSON."""
        for piece in pieces:
            path = folder / _file_name(piece)
            with path.open("rb") as file:
                for number in range(piece.images):
                    yield _read_image(piece, list(islice(file, plan.crops)), plan, f"{path}: image {number}")
                if file.read(1):
                    raise TokensError(f"{path}: has lines after those of {piece.images} images; export again")


def _file_name(piece: Piece) -> str:
    return f"{stem_of(piece)}.jsonl"


def _read_image(piece: Piece, lines: Sequence[bytes], plan: ExportPlan, place: str) -> ReadImage:
    if len(lines) != plan.crops:
        raise TokensError(f"{place}: {len(lines)} of its {plan.crops} lines are there; export again")
    try:
        found = [json.loads(line) for line in lines]
        ids: npt.NDArray[np.integer[Any]] = np.array([line["tokens"] for line in found], plan.dtype)
        labels = {int(line["class_id"]) for line in found}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise TokensError(f"{place}: damaged ({error}); export again") from error
    if ids.shape != (plan.crops, plan.ids_per_image) or len(labels) != 1:
        raise TokensError(
            f"{place}: {ids.shape[-1]} tokens of {len(labels)} classes, expected {plan.ids_per_image} of 1; export "
            "again"
        )
    return ReadImage(split=piece.split, ids=ids, label=labels.pop())
