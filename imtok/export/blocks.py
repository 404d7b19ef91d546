"""The images of a piece in blocks, read from the memory-mapped shards of a token set.

In the order of the inputs a block is a run of images of one unit, and its ids may be a view of the shard itself. In
another order a block holds as many images as fit a fixed number of bytes, which are gathered unit by unit.
"""

# Axes: n images of a block, A crops of an image, T ids of an image.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from imtok.errors import Interrupted
from imtok.export.format import Block, ExportPlan, Piece, Split
from imtok.export.selection import Numbers, Selection
from imtok.export.sequences import SequenceLayout
from imtok.packed_strings import PackedStrings
from imtok.tokens.shard import NO_LABEL, Shard

_Part = tuple[Numbers, Shard, Numbers]  # places in a block, and the shard and the rows of it that go there

_BLOCK_BYTES = 16 << 20  # of ids; a gather of this many touches each unit of a large set often enough


class Keys(Sequence[str]):
    """Keys of a block, which are unpacked when they are first read: many formats have none."""

    def __init__(self, count: int, parts: Sequence[tuple[Numbers, PackedStrings, Numbers]]) -> None:
        """Take (places in the block, keys of a unit, rows of the unit) for each unit."""
        self._count, self._parts = count, parts
        self._keys: list[str] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._unpacked()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._unpacked())

    def _unpacked(self) -> list[str]:
        if self._keys is None:
            self._keys = [""] * self._count
            for places, keys, rows in self._parts:
                for place, key in zip(places.tolist(), keys.encoded_at(rows), strict=True):
                    self._keys[place] = key.decode()
        return self._keys


@dataclass(frozen=True, eq=False)
class CodeBlock:
    """Images of one split that follow each other in the order of export, as the token set has them."""

    keys: Keys  # n
    codes: npt.NDArray[Any]  # (n, A, h, w) or (n, A, h, w, Q)
    labels: npt.NDArray[np.int64] | None  # (n,), None where no image of the set has one
    crops: npt.NDArray[np.int64] | None  # (n, A, 5) of an augmented set
    sizes: npt.NDArray[np.int64]  # (n, 2) height, width


class BlockReader:
    """Reads the images of pieces in blocks of a bounded size."""

    def __init__(self, selection: Selection, plan: ExportPlan, should_stop: Callable[[], bool] | None = None) -> None:
        self._selection, self._plan, self._should_stop = selection, plan, should_stop
        row_bytes = plan.crops * plan.ids_per_image * plan.dtype.itemsize
        self._most = max(1, _BLOCK_BYTES // row_bytes)  # images of a block

    def blocks(self, piece: Piece, layout: SequenceLayout, advance: Callable[[int], None]) -> Iterator[Block]:
        """Yield the images of a piece in their order, as ids; `advance` receives the images of each block after it."""
        for first, block in self.code_blocks(piece):
            ids = layout.ids(block.codes, block.labels, self._plan.dtype)
            yield Block(piece.split, first, block.keys, ids, block.labels, block.crops, block.sizes)
            advance(len(ids))

    def code_blocks(self, piece: Piece) -> Iterator[tuple[int, CodeBlock]]:
        """Yield the number of the first image and the block; raises Interrupted once `should_stop` says so."""
        first, end = piece.first, piece.first + piece.images
        while first < end:
            if self._should_stop and self._should_stop():
                raise Interrupted("stopped on request")
            together = self._selection.together(piece.split, first) or self._most
            images = min(together, self._most, end - first)
            yield first, self._read(piece.split, first, images)
            first += images

    def _read(self, split: Split, first: int, images: int) -> CodeBlock:
        positions, rows = self._selection.find(split, first, images)
        order = np.argsort(positions, kind="stable")
        units, starts = np.unique(positions[order], return_index=True)
        parts = []
        for unit, places in zip(units.tolist(), np.split(order, starts[1:]), strict=True):
            parts.append((places, self._selection.shard(unit), rows[places]))
        augmented = all(shard.crops is not None for _, shard, _ in parts)
        return CodeBlock(
            keys=Keys(images, [(places, shard.keys, chosen) for places, shard, chosen in parts]),
            codes=_gathered(parts, lambda shard: shard.all_codes),
            labels=_gathered(parts, _labels) if self._plan.labelled else None,
            crops=_gathered(parts, _crops).astype(np.int64) if augmented else None,
            sizes=_gathered(parts, lambda shard: shard.original_size).astype(np.int64),
        )


def _crops(shard: Shard) -> npt.NDArray[Any]:
    assert shard.crops is not None  # only of augmented sets are they taken
    return shard.crops


def _labels(shard: Shard) -> npt.NDArray[np.int64]:
    return np.full(len(shard), NO_LABEL, np.int64) if shard.labels is None else shard.labels


def _gathered(parts: Sequence[_Part], array: Callable[[Shard], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put rows of an array of several shards at their places in a block; those of one shard, in order, as they are."""
    if len(parts) == 1 and isinstance(_index(parts[0][0]), slice):
        return array(parts[0][1])[_index(parts[0][2])]
    found = [(places, array(shard)[_index(rows)]) for places, shard, rows in parts]
    gathered = np.empty((sum(map(len, (rows for _, rows in found))), *found[0][1].shape[1:]), found[0][1].dtype)
    for places, rows in found:
        gathered[places] = rows
    return gathered


def _index(rows: Numbers) -> slice | Numbers:
    """Return rows as a slice where they follow each other, so that taking them copies nothing."""
    consecutive = len(rows) and (np.diff(rows) == 1).all()
    return slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else rows
