"""WebDataset tars: a sample is `NAME.npy`, `NAME.cls` where the image has a label, and `NAME.json`.

    train-00000.tar, val-00000.tar   ids (T,), or (A, T) for A > 1 crops

The JSON holds the key of the image, its grid, and the crops of augmented sets. `imtok.export.member_names` makes names
of keys. The types are those that torch computes with: uint16 can neither be added nor be embedded there.
"""

# Axes: n images of a block, A crops of an image, T ids of an image.

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.member_names import MemberNames
from imtok.export.npy_files import npy_files
from imtok.export.tar_writing import Content, TarWriter, read_members


class WebDataset(Format):
    """Tars of samples."""

    name: ClassVar[str] = "webdataset"
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "int16", "int32", "int64")
    library: ClassVar[str | None] = "webdataset"
    default_images: ClassVar[int | None] = 10_000

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the pattern of the tars, and the vocabulary."""
        last = self.last_piece(plan)
        tars = f"train-{{00000..{last:05}}}.tar" if last else "train-00000.tar"
        return f'WebDataset("OUT/{tars}").decode(): .npy holds {plan.ids_per_image} of {plan.num_ids} ids'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write one tar."""
        name = _tar_name(piece)
        names = MemberNames()
        with hashed_writer(folder / name) as file:
            tar = TarWriter(file)
            for block in blocks:
                tar.write_samples(names.take(block.keys), _contents(block, plan))
            tar.close()
        return [name]

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the members by `tarfile`."""
        del plan
        for piece in pieces:
            path = folder / _tar_name(piece)
            count = 0
            for name, members in groupby(read_members(path), lambda member: member.name.partition(".")[0]):
                yield _read_image(piece, {_suffix(member.name): member.data for member in members}, f"{path}: {name}")
                count += 1
            if count != piece.images:
                raise TokensError(f"{path}: holds {count} images, expected {piece.images}; export again")

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the samples by webdataset."""
        from webdataset.autodecode import Decoder
        from webdataset.tariterators import group_by_keys, tar_file_expander

        del plan
        decode = Decoder([])
        for piece in pieces:
            # The stages of `WebDataset(...).decode()`, which itself leaves its files open.
            with (folder / _tar_name(piece)).open("rb") as stream:
                files = tar_file_expander([{"url": _tar_name(piece), "stream": stream}])
                for sample in map(decode, group_by_keys(files)):
                    yield ReadImage(
                        split=piece.split,
                        ids=np.atleast_2d(sample["npy"]),
                        key=sample["json"]["key"],
                        label=sample.get("cls"),
                    )


def _tar_name(piece: Piece) -> str:
    return f"{piece.split}-{piece.number:05}.tar"


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2]


def _contents(block: Block, plan: ExportPlan) -> dict[str, Content]:
    """Return the members of a block's samples by their suffixes."""
    contents: dict[str, Content] = {"npy": npy_files(block.ids if plan.crops > 1 else block.ids[:, 0])}
    if block.labels is not None:
        contents["cls"] = [b"%d" % label if label >= 0 else None for label in block.labels.tolist()]
    height, width = plan.info.grid
    tail = f',"height":{height},"width":{width}'
    tails = repeat(tail) if block.crops is None else [f'{tail},"crops":{crops}' for crops in block.crops.tolist()]
    # The strings of json.dumps, without its overhead for each.
    keys = map(encode_basestring_ascii, block.keys)
    contents["json"] = [f'{{"key":{key}{end}}}'.encode() for key, end in zip(keys, tails, strict=False)]
    return contents


def _read_image(piece: Piece, members: dict[str, bytes], place: str) -> ReadImage:
    try:
        ids: npt.NDArray[np.integer[Any]] = np.load(io.BytesIO(members["npy"]))
        key = json.loads(members["json"])["key"]
        label = int(members["cls"]) if "cls" in members else None
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise TokensError(f"{place}: damaged ({error}); export again") from error
    return ReadImage(split=piece.split, ids=np.atleast_2d(ids), key=key, label=label)
