"""LlamaGen's class-conditional training set: two .npy files an image, named by its number.

    imagenet256_codes/{i}.npy     int64 (1, A, T)
    imagenet256_labels/{i}.npy    int64 (1,)

Read from LlamaGen's `dataset/imagenet.py` and `autoregressive/train/extract_codes_c2i.py`. Its loader looks for the
names 0 ... 1281166, and for no other. It draws one of A crops only where the path holds "flip", and otherwise takes the
A * T ids as one sequence; so augmented sets lie in a folder of that name. The held-out images lie in `val/`.
"""

# Axes: A crops of an image, T ids of an image.

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imtok.errors import ConfigError, TokensError
from imtok.export.file_runs import run_of
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.limits import check_all_labelled
from imtok.export.npy_files import npy_files
from imtok.export.small_files import write_small_files

_NAMES = 1_281_167  # images of ImageNet-1k
_TEN_CROPS = 10


class LlamaGen(Format):
    """Files of codes and of labels."""

    name: ClassVar[str] = "llamagen"
    dtypes: ClassVar[tuple[str, ...]] = ("int64",)
    refused: ClassVar[frozenset[str]] = frozenset({"boi", "eoi", "eol", "eod", "label", "label_offset", "shard_size"})
    default_images: ClassVar[int | None] = 1024

    def check(self, plan: ExportPlan) -> None:
        """Refuse images without a label, and more images than the names of LlamaGen's loader."""
        check_all_labelled(self, plan)
        for split, images in plan.images.items():
            if images > _NAMES:
                raise ConfigError(
                    f"llamagen: {images} images in {split}, and LlamaGen reads the names 0 to {_NAMES - 1} alone; "
                    "export to rar-jsonl, parquet or npy, which hold any number"
                )

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the options of LlamaGen's trainer, and how many images it looks for."""
        note = (
            f"--code-path OUT/{_code_path('train', plan)} --image-size {plan.info.size} --vocab-size {plan.num_ids}; "
            f"sequences of {plan.ids_per_image} ids"
        )
        images = plan.images.get("train", 0)
        if images != _NAMES:
            note += f"; its loader looks for {_NAMES} images, so set range({_NAMES}) in dataset/imagenet.py to {images}"
        return note

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write two files for each image; the piece is whole where its last file, a label, is there."""
        write_small_files(folder, _files(piece, blocks, plan))
        return [f"{name}/{run_of(piece.first, piece.images)}.npy" for name in _folders(piece.split, plan)]

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the files by their numbers."""
        for piece in pieces:
            codes, labels = _folders(piece.split, plan)
            for number in range(piece.first, piece.first + piece.images):
                ids = _load(folder / codes / f"{number}.npy", (1, plan.crops, plan.ids_per_image))
                label = _load(folder / labels / f"{number}.npy", (1,))
                yield ReadImage(split=piece.split, ids=ids[0], label=int(label[0]))


def _code_path(split: Split, plan: ExportPlan) -> str:
    """Return the path that LlamaGen's trainer takes, below the folder of the export."""
    held_out = "val/" if split == "val" else ""
    if plan.crops == 1:
        return held_out
    return held_out + ("flip_ten_crop/" if plan.crops == _TEN_CROPS else "flip/")  # ten_crop is a word of its log too


def _folders(split: Split, plan: ExportPlan) -> tuple[str, str]:
    base = f"{_code_path(split, plan)}imagenet{plan.info.size}"
    return f"{base}_codes", f"{base}_labels"


def _files(piece: Piece, blocks: Iterable[Block], plan: ExportPlan) -> Iterator[tuple[str, bytes]]:
    codes, labels = _folders(piece.split, plan)
    for block in blocks:
        assert block.labels is not None  # checked before
        files = zip(npy_files(block.ids[:, None]), npy_files(block.labels[:, None]), strict=True)
        for number, (ids, label) in enumerate(files, block.first):
            yield f"{codes}/{number}.npy", ids.tobytes()
            yield f"{labels}/{number}.npy", label.tobytes()


def _load(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(path.read_bytes()))
    except (OSError, ValueError, EOFError) as error:
        raise TokensError(f"{path}: cannot be read ({error}); export again") from error
    if array.shape != shape or array.dtype != np.dtype("<i8"):
        raise TokensError(f"{path}: {array.dtype}{list(array.shape)}, expected int64{list(shape)}; export again")
    return array
