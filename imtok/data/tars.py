"""Tars of images: an index of what lies where, and whether the tar is whole.

A WebDataset tar holds `x.jpg` and, beside it, `x.cls` with a class number. The index is built from the headers
alone; pictures are then read from their offsets, in any order and by any thread.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from imtok.data.images import SUFFIXES
from imtok.errors import SourceError

_BLOCK = 512
_LABEL_BYTES = 64  # a longer .cls member is no class number


@dataclass(frozen=True)
class TarImage:
    """One image member: where its bytes lie, and where those of its class number do."""

    key: str  # member name without a leading ./
    offset: int
    size: int
    label: tuple[int, int] | None = None  # offset and size of its .cls member

    @property
    def unsafe(self) -> bool:
        """The name would leave the folder it is unpacked in, or can be no file's name."""
        path = PurePosixPath(self.key)
        return path.is_absolute() or ".." in path.parts or "\0" in self.key


@dataclass(frozen=True)
class TarIndex:
    """What a tar holds, and what is wrong with it, if anything."""

    path: Path
    size: int  # bytes
    images: tuple[TarImage, ...]
    others: int  # regular members that are neither images nor labels
    problem: str | None  # None for a whole tar; `images` then holds what lies before the damage

    @cached_property
    def duplicates(self) -> tuple[str, ...]:
        """Keys that occur more than once, sorted; unsafe ones are left out, as nothing is made of them."""
        times = Counter(image.key for image in self.images if not image.unsafe)
        return tuple(sorted(key for key, count in times.items() if count > 1))

    def read(self, image: TarImage) -> bytes:
        """The bytes of one image; raises SourceError when the file has become shorter."""
        return _read_at(self.path, image.offset, image.size)

    def read_label(self, image: TarImage) -> int | None:
        """The class number of one image, None where there is none or it is no 64-bit number."""
        if image.label is None or image.label[1] > _LABEL_BYTES:
            return None
        try:
            label = int(_read_at(self.path, *image.label))
        except ValueError:
            return None
        return label if -(2**63) <= label < 2**63 else None


def index_tar(path: Path) -> TarIndex:
    """Read the headers of a tar; damage is reported in `problem`, not raised.

    Raises SourceError where the file cannot be read: that may pass, and says nothing about the tar.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            return TarIndex(path, 0, (), 0, "the file is empty (0 bytes)")
        members, end, problem = _read_headers(path)
        problem = problem or _end_problem(path, end)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror or error}); check it and its permissions"
        ) from error
    labels = {name.removesuffix(".cls"): (offset, size) for name, offset, size in members if name.endswith(".cls")}
    pictures = [member for member in members if _is_image(member[0])]
    images = tuple(TarImage(name, offset, size, _label_of(name, labels)) for name, offset, size in pictures)
    return TarIndex(path, size, images, len(members) - len(images) - len(labels), problem)


def _read_headers(path: Path) -> tuple[list[tuple[str, int, int]], int, str | None]:
    """Regular members as (name, offset, size), the offset after the last one, and a problem met on the way."""
    members: list[tuple[str, int, int]] = []
    end, size = 0, path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                stop = member.offset_data + (member.size if member.isreg() else 0)
                if stop > size:
                    return members, end, f"cut short inside {member.name}"
                end = stop + -stop % _BLOCK
                if member.isreg() and not member.issparse():
                    name = os.fsencode(member.name.removeprefix("./")).decode("utf-8", "backslashreplace")
                    members.append((name, member.offset_data, member.size))
    except tarfile.ReadError as error:
        problem = "cut short" if members else f"not an uncompressed tar ({error})"
        return members, end, problem
    except (tarfile.TarError, ValueError, UnicodeError) as error:
        return members, end, f"damaged ({error})"
    return members, end, None


def _end_problem(path: Path, end: int) -> str | None:
    """A whole tar ends in two blocks of zeros; one cut between members shows no other sign."""
    with path.open("rb") as file:
        file.seek(end)
        tail = file.read(2 * _BLOCK)
    if tail == bytes(2 * _BLOCK):
        return None
    if any(tail):
        return f"damaged at byte {end}: neither a member nor the end of the archive"
    return "cut short between members: the end-of-archive blocks are missing"


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _label_of(name: str, labels: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """The .cls beside an image: under its whole stem, or under WebDataset's, which ends at the first dot."""
    path = PurePosixPath(name)
    whole = str(path.with_suffix(""))
    first = str(path.with_name(path.name.split(".")[0] or path.name))
    return labels.get(whole) or labels.get(first)


def _read_at(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror or error}); check it and its permissions"
        ) from error
    if len(data) != size:
        raise SourceError(f"{path}: {len(data)} of {size} bytes at {offset}; the file changed while it was read")
    return data
