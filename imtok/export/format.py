"""The contract of a format that token sets are exported to: what it holds, how it is written, and read back.

A format is a module of `imtok.export.formats` with a class of this contract, and a line in `FORMATS`. The job cuts the
images of each split into pieces, in their order of export. A piece becomes files of its own, whose bytes depend on
the token set, the options and the number of the piece alone. So an export can be stopped and resumed by pieces.
"""

# Axes: n images of a block, A crops of an image, h x w latent grid, Q codebooks, T ids of an image.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from imtok.export.options import ExportOptions
from imtok.tokens import TokensInfo

Split = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class Block:
    """Images of one split that follow each other in the order of export."""

    split: Split
    first: int  # number of the first image in its split
    keys: Sequence[str]  # n
    ids: npt.NDArray[np.integer[Any]]  # (n, A, T) in the type of the export, made by the options; A is 1 without crops
    labels: npt.NDArray[np.int64] | None  # (n,), -1 where an image has none; None where the set has none at all
    crops: npt.NDArray[np.int64] | None = None  # (n, A, 5), None without crops
    sizes: npt.NDArray[np.int64] | None = None  # (n, 2), height and width of the upright pictures in pixels

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ExportPlan:
    """The facts of an export before it begins."""

    info: TokensInfo  # of the token set
    options: ExportOptions
    dtype: np.dtype[Any]  # of the ids, little-endian
    ids_per_image: int  # T
    num_ids: int  # 1 + the largest id that may occur, which a trainer's vocabulary must hold
    crops: int  # A
    images: dict[Split, int]  # images of each split that is not empty
    labelled: int  # images with a label
    class_names: tuple[str, ...]

    @property
    def total(self) -> int:
        """Images of all splits."""
        return sum(self.images.values())


@dataclass(frozen=True)
class Piece:
    """A run of images of one split that becomes files of its own."""

    split: Split
    number: int  # in its split, from 0
    pieces: int  # of its split
    first: int  # number of its first image in the split
    images: int


@dataclass(frozen=True, eq=False)
class ReadImage:
    """An image as a reader of the format gives it back, for `imtok verify --against`."""

    split: Split
    ids: npt.NDArray[np.integer[Any]]  # (A, T); with whatever ids the format itself puts around them removed
    key: str | None = None  # None where the format has no keys
    label: int | None = None  # None where the format has no labels or the image has none


class Format(ABC):
    """One format."""

    name: ClassVar[str]  # as `imtok export --to` takes it
    dtypes: ClassVar[tuple[str, ...]]  # types of ids that it holds, the narrowest first
    packages: ClassVar[tuple[str, ...]] = ()  # distributions without which it cannot be written
    extra: ClassVar[str] = "exports"  # of imtok, which brings them
    library: ClassVar[str | None] = None  # distribution that owns the format and reads it back; None: no library
    refused: ClassVar[frozenset[str]] = frozenset()  # options that mean nothing in this format, by field name
    default_images: ClassVar[int | None] = None  # images in a piece where --shard-size says nothing; None: one piece
    trainer_folders: ClassVar[frozenset[str]] = frozenset()  # that its trainer makes among the files of an export
    id_limits: ClassVar[Mapping[str, int]] = {}  # ids that a type holds here, where fewer than its width could

    @classmethod
    def most_ids(cls, dtype: str) -> int:
        """Return how many ids, from 0 on, one of `dtypes` holds in this format."""
        return cls.id_limits.get(dtype, int(np.iinfo(dtype).max) + 1)

    def check(self, plan: ExportPlan) -> None:  # noqa: B027  (most formats hold whatever fits their types)
        """Raise ConfigError where the format cannot hold the tokens: both numbers, and the format that can."""

    def last_piece(self, plan: ExportPlan, split: Split = "train") -> int:
        """Return the number of the last piece of a split."""
        size = plan.options.shard_size or self.default_images
        return 0 if size is None else (plan.images[split] - 1) // size

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return one line on what the trainer must be told; it is printed after the export."""
        return f"vocabulary of {plan.num_ids} ids, {plan.ids_per_image} ids an image"

    @abstractmethod
    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the files of a piece into `folder`, each with `atomic_writer`, holding one block at a time.

        Returns their POSIX paths below `folder`. Called again after a stop, it writes the same bytes.
        """

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write what stands beside the pieces, such as an index, when all of them are there; return the paths."""
        del pieces, plan, folder
        return []

    @abstractmethod
    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back in its order, by a reader that knows the layout alone; raises TokensError on damage."""

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back by `library`; raises ImportError where it is not installed."""
        del pieces, plan, folder
        raise NotImplementedError(f"{self.name} has no library that reads it")
