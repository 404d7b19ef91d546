"""Emu3's training set: a .pth file an image, and a list of them as JSON.

    feature/train/000000/17.pth    {"name": key, "images": int64 (h, w), "texts": name of the class or ""}
    list/train.json                {"prefix": "feature", "path_list": ["train/000000/17.pth", ...]}

Read from Emu3's `emu3/train/datasets.py` and `prepare_data.py`. The trainer puts each image into a sequence by itself,
with its height and width, and an end-of-line token between rows; so it gets bare codes on their grid. Files
are named by the number of the image, and of a set with crops by the number of the crop too, as keys may repeat. The
codes are a tensor, which `torch.load` takes with `weights_only` too; Emu3's own files need it switched off.
"""

# Axes: n images of a block, A crops of an image, h x w latent grid, T = h*w.

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from imtok.errors import ConfigError, TokensError
from imtok.export.file_runs import run_of
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.small_files import write_small_files
from imtok.files import atomic_writer

_FEATURES = "feature"
_FOLDER_IMAGES = 1000  # images whose files share a folder
_VISUAL_TOKENS = 32_768  # of Emu3's own vocabulary


class Emu3(Format):
    """Files of codes with a text."""

    name: ClassVar[str] = "emu3"
    dtypes: ClassVar[tuple[str, ...]] = ("int64",)
    refused: ClassVar[frozenset[str]] = frozenset(
        {"offset", "boi", "eoi", "eol", "eod", "order", "codebook_offsets", "label", "label_offset", "shard_size"}
    )
    default_images: ClassVar[int | None] = _FOLDER_IMAGES

    def check(self, plan: ExportPlan) -> None:
        """Refuse several codes at one place of the grid."""
        if plan.info.num_codebooks > 1:
            raise ConfigError(
                f"emu3: {plan.info.num_codebooks} codes at each place of the grid, and Emu3 reads 1; export to npy, "
                "parquet or webdataset, which hold any number"
            )

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the options of Emu3's trainer."""
        note = f"run in OUT with --data_path list/train.json --codebook_size {plan.num_ids}"
        if plan.num_ids > _VISUAL_TOKENS:
            note += f"; Emu3's vocabulary has {_VISUAL_TOKENS} visual tokens, so it needs {plan.num_ids}"
        return note

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write a file for each crop of each image; the piece is whole where its last file is there."""
        write_small_files(folder, _files(piece, blocks, plan))
        return [f"{_FEATURES}/{name}" for name in _runs(piece, plan)]

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the list of each split, a name at a time."""
        del pieces
        paths = []
        for split, images in plan.images.items():
            paths.append(f"list/{split}.json")
            with atomic_writer(folder / paths[-1]) as file:
                file.writelines(_list(split, images, plan))
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the files that the lists name; these are compared with what they have to be."""
        for split, images in plan.images.items():
            _check_list(folder / f"list/{split}.json", _list(split, images, plan))
        for piece in pieces:
            for number in range(piece.first, piece.first + piece.images):
                files = [_file_name(piece.split, number, crop, plan) for crop in range(plan.crops)]
                found = [_load(folder / _FEATURES / name, plan) for name in files]
                yield ReadImage(split=piece.split, ids=np.stack([ids for _, ids in found]), key=found[0][0])


def _file_name(split: Split, number: int, crop: int, plan: ExportPlan) -> str:
    part = "" if plan.crops == 1 else f"-{crop}"
    return f"{split}/{number // _FOLDER_IMAGES:06}/{number}{part}.pth"


def _runs(piece: Piece, plan: ExportPlan) -> Iterator[str]:
    """Yield the names of a piece's files, those of a folder as one run."""
    first, end = piece.first, piece.first + piece.images
    while first < end:
        images = min(end, (first // _FOLDER_IMAGES + 1) * _FOLDER_IMAGES) - first
        part = "" if plan.crops == 1 else f"-{run_of(0, plan.crops)}"
        yield f"{piece.split}/{first // _FOLDER_IMAGES:06}/{run_of(first, images)}{part}.pth"
        first += images


def _list(split: Split, images: int, plan: ExportPlan) -> Iterator[bytes]:
    """Yield the list of a split, an image at a time."""
    yield b'{"prefix": "%b", "path_list": [' % _FEATURES.encode()
    for number in range(images):
        names = ", ".join(f'"{_file_name(split, number, crop, plan)}"' for crop in range(plan.crops))
        yield (", " if number else "").encode() + names.encode()
    yield b"]}\n"


def _files(piece: Piece, blocks: Iterable[Block], plan: ExportPlan) -> Iterator[tuple[str, bytes]]:
    for block in blocks:
        texts = _texts(block, plan)
        grids = torch.from_numpy(block.ids.astype(np.int64)).reshape(len(block), plan.crops, *plan.info.grid)
        for i, (key, text) in enumerate(zip(block.keys, texts, strict=True)):
            for crop in range(plan.crops):
                file = io.BytesIO()
                # A clone, as of a view the whole block would be saved.
                torch.save({"name": key, "images": grids[i, crop].clone(), "texts": text}, file)
                yield f"{_FEATURES}/{_file_name(piece.split, block.first + i, crop, plan)}", file.getvalue()


def _texts(block: Block, plan: ExportPlan) -> list[str]:
    """Return the names of the classes of a block's images, "" where they have none."""
    if block.labels is None:
        return [""] * len(block)
    names = plan.class_names
    return [names[label] if 0 <= label < len(names) else "" for label in block.labels.tolist()]


def _check_list(path: Path, expected: Iterator[bytes]) -> None:
    """Raise TokensError unless a file holds the expected list."""
    try:
        with path.open("rb") as file:
            same = all(file.read(len(part)) == part for part in expected) and not file.read(1)
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error}); export again") from error
    if not same:
        raise TokensError(f"{path}: names other files than those of the export; export again")


def _load(path: Path, plan: ExportPlan) -> tuple[str, npt.NDArray[np.int64]]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
        grid: npt.NDArray[np.int64] = content["images"].numpy()
        name: str = content["name"]
    except Exception as error:  # torch.load raises whatever its unpickler, zip reader and file system raise
        raise TokensError(f"{path}: cannot be read ({error}); export again") from error
    if grid.shape != plan.info.grid or grid.dtype != np.int64:
        raise TokensError(f"{path}: {grid.dtype}{list(grid.shape)}, expected int64{list(plan.info.grid)}; export again")
    return name, grid.reshape(-1)
