"""Tokens by number, and shard by shard: a token folder as a data set.

Shards are mapped as they are needed, so random access costs microseconds and a data set may be larger than memory.
"""

# Axes: A crops of an image, h x w latent grid, Q codebooks.

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from imtok.counted import counted
from imtok.errors import TokensError
from imtok.tokens.folder import MANIFEST, Manifest, TokensInfo, find_shards, read_info, read_manifest, shard_path
from imtok.tokens.object_store import ObjectFile
from imtok.tokens.plan import read_plans
from imtok.tokens.ranged import WHOLE_BYTES, RangedReader
from imtok.tokens.shard import NO_LABEL, Shard, read_shard, smallest_dtype
from imtok.tokens.store import LocalStore, Location, Store, StoredFile, store_of

if TYPE_CHECKING:
    from torch import Tensor

# A process may hold 65,530 maps on Linux; a billion images in shards of 2,048 would need 488,000.
_OPEN_SHARDS = 4096
_FETCHED_SHARDS = 64  # of an object store, each of some MiB, in memory


class ImageSource(NamedTuple):
    """Where an image of a token folder came from."""

    container: str | None  # the container's name in the plan, None for an image of the folder list
    unit: int
    position: int  # in the unit


class TokenDataset:
    """A list of (key, codes): `len(tokens)`, `tokens[i]`, iteration in the order of the inputs.

    Codes are int64 tensors (h, w), or (h, w, Q) for Q codebooks. `tokens[-1]` is the last image, and `tokens[a:b]` a
    list of (key, codes). `with_labels()` adds class numbers. Picklable, for the workers of a DataLoader.

    Of an augmented set these are the codes of each image's first crop; `all_codes(i)` has those of all its crops.
    """

    def __init__(
        self, folder: Location, info: TokensInfo, units: Sequence[int], counts: Sequence[int], skipped: int
    ) -> None:
        self.store, self.info = store_of(folder), info
        self.units = tuple(units)  # those that are there, ascending
        self.skipped = skipped  # inputs that could not be read
        self._ends = list(itertools.accumulate(counts))
        self._open: dict[int, Shard] = {}
        self._ranged = RangedReader()
        self._container_names: dict[int, str] | None = None  # by unit, read when it is first asked for

    @property
    def folder(self) -> Path:
        """The folder on this machine; raises TokensError for a set on an object store, whose files `store` reaches."""
        if not isinstance(self.store, LocalStore):
            raise TokensError(f"{self.store}: no folder of this machine; copy it to one first")
        return self.store.folder

    @property
    def codebook_size(self) -> int:
        """K: codes are in [0, K)."""
        return self.info.codebook_size

    @property
    def num_codebooks(self) -> int:
        """Q: codes at each position of the grid."""
        return self.info.num_codebooks

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): codes down and across."""
        return self.info.grid

    @property
    def num_crops(self) -> int:
        """A: crops of each image, 1 without augmentation."""
        return self.info.num_crops

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the tokenizer that made the codes."""
        return self.info.fingerprint

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels by their number; empty where numbers have no names, or there are no labels."""
        return self.info.all_class_names

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names that hold for the labels of all images; by rules 1 tars have numbers without names."""
        mixed = self.info.rules == 1 and any(self.info.is_container(unit) for unit in self.units)
        return () if mixed else self.class_names

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.info.code_shape))
        name = f"{self.store}, " if str(self.store) != "." else ""
        return f"<TokenDataset {name}{counted(len(self), 'image', form=',')}, {shape} codes of {self.codebook_size:,}>"

    @overload
    def __getitem__(self, index: int) -> tuple[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Tensor]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, Tensor] | list[tuple[str, Tensor]]:
        import torch  # here, since the readers of whole shards do without it

        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        shard, row = self._find(index)
        return shard.keys[row], torch.from_numpy(shard.codes[row].astype(np.int64))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        import torch

        for shard in self.shards():
            for key, codes in zip(shard.keys, shard.codes, strict=True):
                yield key, torch.from_numpy(codes.astype(np.int64))

    def key(self, index: int) -> str:
        """Return the key of an image."""
        shard, row = self._find(index)
        return shard.keys[row]

    def all_codes(self, index: int) -> Tensor:
        """Return the codes of every crop of an image: (A, h, w) or (A, h, w, Q) int64."""
        import torch

        shard, row = self._find(index)
        return torch.from_numpy(shard.all_codes[row].astype(np.int64))

    def crops(self, index: int) -> Tensor | None:
        """Return the crops of an image, (A, 5) int64, None without augmentation.

        The five are top, left, height and width in pixels of the upright picture, and 1 where the crop is mirrored.
        """
        import torch

        shard, row = self._find(index)
        return None if shard.crops is None else torch.from_numpy(shard.crops[row].astype(np.int64))

    def label(self, index: int) -> int | None:
        """Return the class number of an image, None where its input had none."""
        shard, row = self._find(index)
        if shard.labels is None or shard.labels[row] == NO_LABEL:
            return None
        return int(shard.labels[row])

    def with_labels(self) -> LabelledTokens:
        """Return the same data set as a list of (key, codes, label)."""
        return LabelledTokens(self)

    def source(self, index: int) -> ImageSource:
        """Return where an image came from; keys are unique within a container and within the folder list."""
        shard, row = self._find(index)
        unit = shard.header.unit
        return ImageSource(self.container_name(unit), unit, int(shard.index[row]))

    def container_name(self, unit: int) -> str | None:
        """Return the name of the container that a unit is, as the plan has it; None for a part of the folder list."""
        if not self.info.is_container(unit):
            return None
        if self._container_names is None:
            entries = read_plans(self.store, len(self.info.extensions))
            self._container_names = {entry.unit: entry.tar for entry in entries if entry.tar is not None}
        return self._container_names.get(unit)

    def shards(self) -> Iterator[Shard]:
        """Yield the units in order, as arrays that are views of the files."""
        for position in range(len(self.units)):
            yield self._read(position)

    def unit(self, position: int) -> tuple[int, Shard]:
        """Return the number of the first image and the shard of `units[position]`; several threads may call it."""
        return self._start(position), self._read(position)

    def shard_path(self, position: int) -> StoredFile:
        """Return the file of `units[position]`."""
        return self.store.file(shard_path(self.units[position]))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # a map belongs to its process

    def _find(self, index: int) -> tuple[Shard, int]:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        index %= len(self)
        position = bisect_right(self._ends, index)
        row = index - self._start(position)
        if self._is_long(position):
            return self._read_row(position, row), 0
        return self._shard(position), row

    def _is_long(self, position: int) -> bool:
        """Return whether a shard is on an object store and too long to be fetched for the sake of one image."""
        if isinstance(self.store, LocalStore):
            return False
        codes = math.prod(self.info.code_shape) * self.num_crops * smallest_dtype(self.codebook_size).itemsize
        return (self._ends[position] - self._start(position)) * codes > WHOLE_BYTES

    def _read_row(self, position: int, row: int) -> Shard:
        """Read an image as a shard of its own."""
        file = self.shard_path(position)
        assert isinstance(file, ObjectFile)
        shard, images = self._ranged.read_row(file, row)
        self._check(position, shard, images)
        return shard

    def _start(self, position: int) -> int:
        return self._ends[position - 1] if position else 0

    def _shard(self, position: int) -> Shard:
        shard = self._open.get(position)
        if shard is None:
            if len(self._open) >= (_OPEN_SHARDS if isinstance(self.store, LocalStore) else _FETCHED_SHARDS):
                self._open.clear()
            shard = self._open[position] = self._read(position)
        return shard

    def _read(self, position: int) -> Shard:
        shard = read_shard(self.shard_path(position))
        self._check(position, shard, len(shard))
        return shard

    def _check(self, position: int, shard: Shard, images: int) -> None:
        """Raise TokensError where a shard of so many images, or a row of it, is not the one that is listed."""
        path, listed = self.shard_path(position), self._ends[position] - self._start(position)
        check_shard(shard, self.units[position], self.info, path)
        if images != listed:  # the numbers of its images would be those of others
            raise TokensError(
                f"{path}: holds {images} images where {listed} are listed; delete it and run the same `imtok encode` "
                "again"
            )


class LabelledTokens:
    """A list of (key, codes, label); the label is a class number, -1 where the image has none.

    Numbers alone can be collated by a DataLoader; `TokenDataset.label` returns None instead of -1.
    """

    def __init__(self, tokens: TokenDataset) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<LabelledTokens of {self.tokens!r}>"

    @overload
    def __getitem__(self, index: int) -> tuple[str, Tensor, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Tensor, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, Tensor, int] | list[tuple[str, Tensor, int]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        label = self.tokens.label(index)
        return (*self.tokens[index], NO_LABEL if label is None else label)

    def __iter__(self) -> Iterator[tuple[str, Tensor, int]]:
        return (self[index] for index in range(len(self)))


def open_tokens(folder: Location, *, partial: bool = False) -> TokenDataset:
    """Open the tokens in a folder written by `imtok encode`, of this machine or as an address such as `s3://b/tokens`.

    Raises TokensError where it is no token folder, is damaged, or has missing units and `partial` is False.
    """
    store = store_of(folder)
    info = read_info(store)
    manifest = read_manifest(store)
    units, _ = find_shards(store)
    missing = [unit for unit in range(info.all_units) if unit not in units]
    if missing and not partial:
        raise TokensError(
            f"{store}: {len(missing)} of {info.all_units} units are missing, first unit {missing[0]}; run the same "
            "`imtok encode` again to complete it, or accept what is there with --partial (partial=True)"
        )
    present = sorted(units & set(range(info.all_units)))
    counts, skipped = _counts(store, info, manifest, present)
    return TokenDataset(store, info, present, counts, skipped)


def check_shard(shard: Shard, unit: int, info: TokensInfo, path: StoredFile) -> None:
    """Raise TokensError where an undamaged shard does not belong to its folder."""
    header = shard.header
    for name, found, expected in (
        ("unit", header.unit, unit),
        ("the tokenizer's fingerprint", header.fingerprint, info.fingerprint),
        ("the codebook size", header.codebook_size, info.codebook_size),
        ("the grid of codes", shard.codes.shape[1:], info.code_shape),
        ("the number of crops", shard.all_codes.shape[1], info.num_crops),
    ):
        if found != expected:
            raise TokensError(f"{path}: foreign, {name} is {found}, expected {expected}; delete it and encode again")


def _counts(store: Store, info: TokensInfo, manifest: Manifest | None, units: Sequence[int]) -> tuple[list[int], int]:
    """Images of each unit and skipped inputs of all, from the manifest or else from the shards."""
    listed = manifest.entries if manifest else ()
    # A set that has grown has the manifest of its first units until the others are there.
    whole = {info.all_units, info.units, *(extension.first_unit for extension in info.extensions)}
    if manifest is not None and len(listed) not in whole:
        raise TokensError(
            f"{store.file(MANIFEST)}: {len(listed)} units, expected {info.all_units}; delete it and run the same "
            "`imtok encode` again"
        )
    counts, skipped = [], 0
    for unit in units:
        if unit < len(listed):
            counts.append(listed[unit].images)
            skipped += listed[unit].skipped
        else:
            shard = read_shard(store.file(shard_path(unit)))
            counts.append(len(shard))
            skipped += shard.skipped
    return counts, skipped
