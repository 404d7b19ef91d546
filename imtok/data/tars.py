"""The reader of tars: what lies where, and whether the tar is whole.

A WebDataset tar holds `x.jpg` and, beside it, `x.cls` with a class number. The index is built from the headers
alone; pictures are then read from their offsets, in any order and by any thread.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from imtok.data.containers import Container, as_text, unreadable
from imtok.data.images import SUFFIXES
from imtok.data.storage import storage_of
from imtok.errors import SourceError

_BLOCK = 512
_LABEL_BYTES = 64  # a longer .cls member is no class number


@dataclass(frozen=True, slots=True)
class TarImage:
    """One image member: where its bytes lie, and where those of its class number do."""

    key: str  # member name without a leading ./
    address: str  # of the tar
    offset: int
    size: int
    label_range: tuple[int, int] | None = None  # offset and size of its .cls member

    def read(self) -> bytes:
        """Read its bytes; raises SourceError where the tar has become shorter or cannot be read."""
        return _read_range(self.address, self.offset, self.size)

    def beside(self, suffix: str) -> bytes | None:
        """Read its `.cls` member; None where there is none or it is too long for a class number."""
        if suffix != ".cls" or self.label_range is None or self.label_range[1] > _LABEL_BYTES:
            return None
        return _read_range(self.address, *self.label_range)


def open_tar(address: str) -> Container:
    """Read the headers of a tar; `problem` reports damage. Raises OSError where the file cannot be read."""
    size = storage_of(address).size(address)
    if size == 0:
        return Container(0, (), "the file is empty (0 bytes)")
    members, end, problem = _read_headers(address, size)
    problem = problem or _end_problem(address, end)
    labels = {name.removesuffix(".cls"): (offset, size) for name, offset, size in members if name.endswith(".cls")}
    images = tuple(
        TarImage(name, address, offset, size, _label_of(name, labels))
        for name, offset, size in members
        if _is_image(name)
    )
    return Container(size, images, problem)


def _read_headers(address: str, size: int) -> tuple[list[tuple[str, int, int]], int, str | None]:
    """Regular members as (name, offset, size), the offset after the last one, and a problem met on the way."""
    members: list[tuple[str, int, int]] = []
    end = 0
    try:
        with storage_of(address).open(address) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                stop = member.offset_data + (member.size if member.isreg() else 0)
                if stop > size:
                    return members, end, f"cut short inside {member.name}"
                end = stop + -stop % _BLOCK
                if member.isreg() and not member.issparse():
                    members.append((as_text(member.name.removeprefix("./")), member.offset_data, member.size))
    except tarfile.ReadError as error:
        problem = "cut short" if members else f"not an uncompressed tar ({error})"
        return members, end, problem
    except (tarfile.TarError, ValueError, UnicodeError) as error:
        return members, end, f"damaged ({error})"
    return members, end, None


def _end_problem(address: str, end: int) -> str | None:
    """Check for the two blocks of zeros that end a whole tar; one cut between members shows no other sign."""
    tail = storage_of(address).read(address, end, 2 * _BLOCK)
    if tail == bytes(2 * _BLOCK):
        return None
    if any(tail):
        return f"damaged at byte {end}: neither a member nor the end of the archive"
    return "cut short between members: the end-of-archive blocks are missing"


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _label_of(name: str, labels: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Find the .cls beside an image: under its whole stem, or under WebDataset's, which ends at the first dot."""
    path = PurePosixPath(name)
    whole = str(path.with_suffix(""))
    first = str(path.with_name(path.name.split(".")[0] or path.name))
    return labels.get(whole) or labels.get(first)


def _read_range(address: str, offset: int, size: int) -> bytes:
    try:
        data = storage_of(address).read(address, offset, size)
    except OSError as error:
        raise unreadable(address, error) from error
    if len(data) != size:
        raise SourceError(f"{address}: {len(data)} of {size} bytes at {offset}; the file changed while it was read")
    return data
