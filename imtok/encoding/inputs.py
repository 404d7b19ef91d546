"""Inputs cut into units: the frozen plan, and one unit opened for reading.

A unit is a fixed run of the sorted folder list, or one tar. What a unit holds depends on the inputs alone, never on
who encodes it.
"""

# Axes: P positions in a unit.

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from imtok.data.sources import ImageFile, Sources, TarFile
from imtok.data.tars import TarImage, TarIndex, index_tar
from imtok.errors import ImageError, SourceError
from imtok.tokens.folder import PlanEntry

OnDuplicate = Literal["fail", "suffix"]

# What one bad file can cause. Other errors (too many open files, a server that went away) would be the unit's or
# the machine's trouble, and must not be recorded as a skip for ever.
_ONE_FILE = {errno.EACCES, errno.EPERM, errno.EIO}


class OpenUnit(Protocol):
    """The inputs of a unit, by position."""

    number: int
    salvaged: str | None  # the damage a tar was taken in spite of
    renamed: int  # keys that got a suffix

    @property
    def keys(self) -> Sequence[str]:
        """P keys, in order."""

    def read(self, position: int) -> bytes:
        """The bytes of an image; raises ImageError to skip this one, SourceError to fail the unit."""

    def label(self, position: int) -> int | None:
        """The class number of an image, None where its input has none."""


@dataclass(frozen=True)
class Plan:
    """The inputs of a job, cut into units."""

    sources: Sources
    unit_size: int

    @property
    def folder_units(self) -> int:
        """Units cut from the folder list; those of tars follow."""
        return -(-len(self.sources.files) // self.unit_size)

    def __len__(self) -> int:
        return self.folder_units + len(self.sources.tars)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Top folders, where they are classes."""
        return self.sources.class_names

    def entries(self) -> Iterator[PlanEntry]:
        """The lines of the plan."""
        for position, file in enumerate(self.sources.files):
            yield PlanEntry(unit=position // self.unit_size, key=file.key, bytes=file.size)
        for unit, tar in enumerate(self.sources.tars, self.folder_units):
            yield PlanEntry(unit=unit, tar=tar.name, bytes=tar.size)

    def files(self, unit: int) -> Sequence[ImageFile]:
        """The images of a unit of the folder list; none for a tar."""
        return self.sources.files[unit * self.unit_size : (unit + 1) * self.unit_size]

    def name(self, unit: int) -> str:
        """What a person calls a unit: its tar, or its first and last image."""
        files = self.files(unit)
        if not files:
            return str(self.sources.tars[unit - self.folder_units].path)
        return f"unit {unit} ({files[0].key} to {files[-1].key})"

    def open(self, unit: int, *, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit:
        """The inputs of a unit; raises SourceError where its tar cannot be used."""
        if unit < self.folder_units:
            return _FolderUnit(unit, self.files(unit), self.class_names)
        return _open_tar(unit, self.sources.tars[unit - self.folder_units], salvage, on_duplicate)


class _FolderUnit:
    """A run of the folder list."""

    salvaged: str | None = None
    renamed = 0

    def __init__(self, number: int, files: Sequence[ImageFile], class_names: Sequence[str]) -> None:
        self.number, self._files = number, files
        self.keys = [file.key for file in files]
        self._classes = {name: place for place, name in enumerate(class_names)}

    def read(self, position: int) -> bytes:
        file = self._files[position]
        try:
            data = file.read()
        except OSError as error:
            if error.errno in _ONE_FILE:
                raise ImageError("unreadable", str(error)) from error
            raise SourceError(f"{file.path}: {error.strerror or error}") from error
        if len(data) != file.size:
            raise SourceError(f"{file.path}: {len(data)} bytes, {file.size} when it was listed; it changes meanwhile")
        return data

    def label(self, position: int) -> int | None:
        return self._classes.get(self.keys[position].split("/", 1)[0])


class _TarUnit:
    """One tar."""

    def __init__(self, number: int, index: TarIndex, keys: list[str]) -> None:
        self.number, self.keys, self._index = number, keys, index
        self.salvaged = index.problem
        self.renamed = sum(key != image.key for key, image in zip(keys, index.images, strict=True))

    def read(self, position: int) -> bytes:
        image = self._index.images[position]
        if image.unsafe:
            raise ImageError("unsafe name", image.key)
        return self._index.read(image)

    def label(self, position: int) -> int | None:
        return self._index.read_label(self._index.images[position])


def _open_tar(number: int, tar: TarFile, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit:
    index = index_tar(tar.path)
    if index.size != tar.size:
        raise SourceError(f"{index.size} bytes, {tar.size} when it was listed; it changes meanwhile")
    if index.problem and not salvage:
        raise SourceError(f"{index.problem}; copy it again, or take what is readable with --salvage")
    if index.duplicates and on_duplicate == "fail":
        count, first = len(index.duplicates), index.duplicates[0]
        raise SourceError(f"{count} keys occur more than once, first {first}; rename with --on-duplicate suffix")
    return _TarUnit(number, index, _unique_keys(index.images))


def _unique_keys(images: Sequence[TarImage]) -> list[str]:
    """Keys in order; one that occurred before becomes the first free of `x~2.jpg`, `x~3.jpg`, …"""
    taken = {image.key for image in images}
    others: dict[str, Iterator[str]] = {}  # names still to try for a key that has occurred
    keys: list[str] = []
    for image in images:
        key = image.key
        if key not in others:
            others[key] = _suffixed(key)
        elif not image.unsafe:
            key = next(name for name in others[key] if name not in taken)
            taken.add(key)
        keys.append(key)
    return keys


def _suffixed(key: str) -> Iterator[str]:
    stem, dot, suffix = key.rpartition(".")
    return (f"{stem}~{number}{dot}{suffix}" for number in itertools.count(2))
