"""Exports for tests of one format: a plan, its pieces, and blocks of random ids, made without a token folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from export_pieces import INFO

from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.formats.npy import Npy
from imtok.export.options import ExportOptions
from imtok.export.planning import cut_pieces


def plan_of(
    train: int,
    val: int = 0,
    *,
    ids: int = 6,
    crops: int = 1,
    num_ids: int = 1000,
    dtype: str = "uint16",
    labelled: int = 0,
    **options: Any,
) -> ExportPlan:
    """The facts of an export of `train` and `val` images, each with `crops` rows of `ids` ids."""
    images: dict[Split, int] = {split: count for split, count in (("train", train), ("val", val)) if count}  # type: ignore[misc]
    return ExportPlan(
        info=INFO,
        options=ExportOptions(**options),
        dtype=np.dtype(dtype).newbyteorder("<"),
        ids_per_image=ids,
        num_ids=num_ids,
        crops=crops,
        images=images,
        labelled=labelled,
        class_names=(),
    )


def pieces_of(plan: ExportPlan, format_class: type[Format] = Npy) -> list[Piece]:
    """The pieces of `shard_size` images of each split; where it is None, of as many as the format takes."""
    return cut_pieces(plan, format_class())


def ids_of(piece: Piece, plan: ExportPlan) -> npt.NDArray[np.integer[Any]]:
    """The ids (n, A, T) of a piece, random in [0, num_ids) with both ends in it."""
    draw = np.random.default_rng([piece.number, len(piece.split)])
    ids = draw.integers(0, plan.num_ids, (piece.images, plan.crops, plan.ids_per_image))
    ids.flat[0], ids.flat[-1] = plan.num_ids - 1, 0
    return ids.astype(plan.dtype)


def blocks_of(piece: Piece, plan: ExportPlan, size: int = 2) -> Iterator[Block]:
    """The blocks of a piece, of `size` images each; image i of a split has label i, each third none."""
    ids = ids_of(piece, plan)
    for start in range(0, piece.images, size):
        numbers = np.arange(start, min(start + size, piece.images)) + piece.first
        yield Block(
            split=piece.split,
            first=piece.first + start,
            keys=[key_of(piece.split, number) for number in numbers],
            ids=ids[start : start + size],
            labels=np.where(numbers % 3 == 2, -1, numbers) if plan.labelled else None,
        )


def key_of(split: Split, number: int) -> str:
    """The key of an image, of a length that depends on it; letters of two bytes in some."""
    return f"{split}/{'ä' * (number % 3)}{number}.jpg"


def export(format_class: type[Format], plan: ExportPlan, folder: Path) -> list[Piece]:
    """Check, write and finish an export; every file that the format names is there, and no other."""
    form, pieces = format_class(), pieces_of(plan, format_class)
    form.check(plan)
    folder.mkdir(exist_ok=True)
    written = [path for piece in pieces for path in form.write(piece, blocks_of(piece, plan), plan, folder)]
    written += form.finish(pieces, plan, folder)
    assert sorted(written) == files_in(folder)
    return pieces


def files_in(folder: Path) -> list[str]:
    """The POSIX paths of all files below a folder, in their order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_read(images: Iterator[ReadImage], pieces: Sequence[Piece], plan: ExportPlan) -> None:
    """Compare what a reader yields with the ids of all pieces, in their order."""
    for piece in pieces:
        for expected in ids_of(piece, plan):
            image = next(images)
            assert image.split == piece.split
            np.testing.assert_array_equal(image.ids, expected)
    assert next(images, None) is None
