"""The images of each split, found by their number in the order of export.

A hash of its key decides the split of an image, so that it keeps its split when the set grows. In memory are a few
numbers for each unit and, where there is a split, one bit for each image.
"""

# Axes: U units, N images of the set, M images that are asked for at once.

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from imtok.errors import Interrupted
from imtok.export.format import Split
from imtok.export.options import ExportOptions
from imtok.packed_strings import PackedStrings
from imtok.permutation import Permutation
from imtok.tokens import TokenDataset
from imtok.tokens.shard import NO_LABEL
from imtok.tokens.shard_counts import read_shard_labels
from imtok.tokens.store import LocalStore

Numbers = npt.NDArray[np.int64]

_KEYS_AT_ONCE = 4096
_OPEN_SHARDS = 1024  # of this machine, which are memory-mapped
_HELD_SHARDS = 64  # of an object store, which are in memory, about 1 MB each


@dataclass(frozen=True)
class LabelFacts:
    """What a scan of all labels found."""

    labelled: int  # images with a label
    largest: int  # -1 where no image has one
    unlabelled_key: str | None  # of the first image without a label


class Selection:
    """The images of each split: how many there are, and where those of given numbers lie."""

    def __init__(self, tokens: TokenDataset, options: ExportOptions, should_stop: Callable[[], bool] | None) -> None:
        """Read the keys or labels of every unit, as far as the options need them."""
        self._tokens = tokens
        many = _OPEN_SHARDS if isinstance(tokens.store, LocalStore) else _HELD_SHARDS
        # In input order no unit comes back; in another each block touches all of them.
        self.shard = lru_cache(many if options.shuffle is not None else 1)(lambda position: tokens.unit(position)[1])
        counts = np.zeros((2, len(tokens.units)), np.int64)  # of train and val in each unit
        self._held_out: list[bytes] = []  # for each unit, a bit for each image: it is of val
        labels = _Labels()
        for position in range(len(tokens.units)):
            if should_stop and should_stop():
                raise Interrupted("stopped on request")
            images, held_out = self._scan(position, options.val_fraction, labels)
            counts[:, position] = images - held_out, held_out
        self.labels = labels.facts(tokens)
        self._ends: dict[Split, Numbers] = {"train": counts[0].cumsum(), "val": counts[1].cumsum()}
        seed = options.shuffle
        self._orders = {} if seed is None else {split: Permutation(n, seed) for split, n in self.images.items()}
        self._rows = lru_cache(maxsize=1024)(self._rows_of)

    def _scan(self, position: int, val_fraction: float, labels: _Labels) -> tuple[int, int]:
        """Take in the labels of a unit; return how many images it has, and how many of them are of val."""
        if not val_fraction:
            found = read_shard_labels(self._tokens.shard_path(position))
            labels.add(position, *found)
            return found[0], 0
        shard = self.shard(position)
        labels.add(position, len(shard), shard.labels)
        chosen = held_out_keys(shard.keys, val_fraction)
        self._held_out.append(np.packbits(chosen).tobytes())
        return len(shard), int(chosen.sum())

    @property
    def images(self) -> dict[Split, int]:
        """Images of each split that is not empty."""
        counts = {split: int(ends[-1]) for split, ends in self._ends.items() if len(ends)}
        return {split: count for split, count in counts.items() if count}

    def together(self, split: Split, first: int) -> int | None:
        """Return how many images, from number `first` of a split on, lie in one unit; None where they are shuffled."""
        if self._orders:
            return None
        ends = self._ends[split]
        return int(ends[np.searchsorted(ends, first, side="right")]) - first

    def find(self, split: Split, first: int, images: int) -> tuple[Numbers, Numbers]:
        """Return positions of units and rows in them: (M,) each, of the images first .. first+images-1 of a split."""
        numbers = np.arange(first, first + images)
        if split in self._orders:
            numbers = self._orders[split](numbers)
        ends = self._ends[split]
        positions = np.searchsorted(ends, numbers, side="right")
        ranks = numbers - np.concatenate([[0], ends])[positions]
        return positions, self._ranked(split, positions, ranks)

    def _ranked(self, split: Split, positions: Numbers, ranks: Numbers) -> Numbers:
        """Return the rows of images whose ranks among those of their split in their unit are given."""
        if not self._held_out:
            return ranks
        rows = np.empty_like(ranks)
        order = np.argsort(positions, kind="stable")
        units, starts = np.unique(positions[order], return_index=True)
        for unit, chosen in zip(units.tolist(), np.split(order, starts[1:]), strict=True):
            rows[chosen] = self._rows(split, unit)[ranks[chosen]]
        return rows

    def _rows_of(self, split: Split, position: int) -> Numbers:
        ends = self._ends
        images = sum(int(each[position] - (each[position - 1] if position else 0)) for each in ends.values())
        bits = np.unpackbits(np.frombuffer(self._held_out[position], np.uint8), count=images)
        return np.flatnonzero(bits == (split == "val"))


def held_out_keys(keys: PackedStrings, fraction: float) -> npt.NDArray[np.bool_]:
    """Return which images are of val: those whose key's hash of 64 bits lies in the first `fraction` of its range."""
    limit = int(fraction * 2**64)
    chosen = np.empty(len(keys), np.bool_)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        stop = min(start + _KEYS_AT_ONCE, len(keys))
        encoded = keys.encoded_at(np.arange(start, stop))
        hashes = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in encoded)
        chosen[start:stop] = np.frombuffer(hashes, "<u8") < np.uint64(limit)
    return chosen


class _Labels:
    def __init__(self) -> None:
        self._labelled, self._largest = 0, NO_LABEL
        self._unlabelled: tuple[int, int] | None = None  # unit and row of the first image without a label

    def add(self, position: int, images: int, labels: npt.NDArray[np.int64] | None) -> None:
        """Take in the labels of a unit."""
        missing = np.arange(min(images, 1)) if labels is None else np.flatnonzero(labels == NO_LABEL)
        if len(missing) and self._unlabelled is None:
            self._unlabelled = position, int(missing[0])
        if labels is not None and len(labels):
            self._labelled += len(labels) - len(missing)
            self._largest = max(self._largest, int(labels.max()))

    def facts(self, tokens: TokenDataset) -> LabelFacts:
        """Return what was found."""
        key = None
        if self._unlabelled is not None:
            position, row = self._unlabelled
            key = tokens.unit(position)[1].keys[row]
        return LabelFacts(self._labelled, self._largest, key)
