"""The reader of tars: what lies where, and whether the tar is whole.

A WebDataset tar holds `x.jpg` and, beside it, `x.cls` with a class number. The index is built from the headers
alone; pictures are then read from their offsets, in any order and by any thread. Tars behind each other in one file,
as `cat a.tar b.tar` makes them, are read one after the other.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from imtok.data.archives.compression import HEAD_BYTES, compression_advice, compression_of
from imtok.data.archives.members import LARGEST_UNPACKED, Lost, Members
from imtok.data.archives.tar_headers import PlainMember, plain_member
from imtok.data.containers import Container
from imtok.data.pixels.formats import HEAD_BYTES as IMAGE_HEAD_BYTES
from imtok.data.pixels.formats import looks_like_image
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.storage import storage_of
from imtok.errors import ImageError, SourceError

_BLOCK = 512
_CHUNK = 2**20  # bytes that are searched at once for what follows an archive
_KINDS = {
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A member whose bytes lie in one piece."""

    offset: int
    size: int

    def read(self, address: str) -> bytes:
        """Read the bytes; raises SourceError where the tar has become shorter."""
        data = storage_of(address).read(address, self.offset, self.size)
        if len(data) != self.size:
            raise SourceError(
                f"{address}: {len(data)} of {self.size} bytes at {self.offset}; the file changed while it was read"
            )
        return data


@dataclass(frozen=True, slots=True)
class Sparse:
    """A member that is stored without its long runs of zeros."""

    header: int  # offset of its first header
    size: int  # bytes with the zeros

    def read(self, address: str) -> bytes:
        """Read the bytes with the zeros between them."""
        try:
            with storage_of(address).open(address) as file:
                file.seek(self.header)
                with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
                    member = tar.next()
                    content = tar.extractfile(member) if member else None
                    return content.read() if content else b""
        except (tarfile.TarError, ValueError) as error:
            raise ImageError("corrupt", f"its map of zeros is damaged ({error})") from error


def open_tar(address: str, reading: Reading = DEFAULT_READING) -> Container:
    """Read the headers of a tar; `problem` reports damage.

    Raises OSError where the file cannot be read, SourceError where it is compressed.
    """
    size = storage_of(address).size(address)
    if size == 0:
        return Container(0, (), "the file is empty (0 bytes)")
    compression = compression_of(storage_of(address).read(address, 0, HEAD_BYTES)) if reading.rules > 1 else None
    if compression is not None:
        raise SourceError(f"{address}: {compression_advice(compression)}")
    members = Members(address, reading)
    with storage_of(address).open(address) as file:
        _, problem = read_archives(file, size, members)
    return members.container(size, problem)


def read_archives(file: BinaryIO, size: int, members: Members) -> tuple[list[int], str | None]:
    """Add the members of all archives in a file of `size` bytes; return where each begins, and a problem if any."""
    starts: list[int] = []
    start: int | None = 0
    problem = None
    while start is not None and problem is None:
        starts.append(start)
        end, problem = _read_headers(file, start, size, members)
        problem = problem or _end_problem(file, end)
        start, problem = (None, problem) if problem or members.rules == 1 else _following(file, end)
    return starts, problem


def _read_headers(file: BinaryIO, start: int, size: int, members: Members) -> tuple[int, str | None]:
    """Add the members of the archive that begins at `start`; return the offset after them, and a problem on the way."""
    end, before = start, len(members)
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while True:
                if (plain := _next_plain(tar, file)) is not None:
                    if plain.offset + plain.size > size:
                        return end, f"cut short inside {plain.name}"
                    end = tar.offset = plain.end
                    _add_plain(members, plain, file)
                    continue
                if (member := tar.next()) is None:
                    break
                # Of a sparse member only tarfile knows how much is stored; rules 1 took all of its size.
                whole = member.isreg() and (members.rules == 1 or not member.issparse())
                if (member.offset_data + member.size if whole else tar.offset) > size:
                    return end, f"cut short inside {member.name}"
                if tar.offset <= end:
                    return end, f"damaged at byte {end}: the size of {member.name} is negative"
                end = tar.offset
                _add(members, member, file)
                tar.members.clear()  # type: ignore[attr-defined]  # a million headers would fill the memory
    except tarfile.ReadError as error:
        return end, "cut short" if len(members) > before else f"not an uncompressed tar ({error})"
    except (tarfile.TarError, ValueError, UnicodeError) as error:
        return end, f"damaged ({error})"
    return end, None


def _next_plain(tar: tarfile.TarFile, file: BinaryIO) -> PlainMember | None:
    """Read the next member where tarfile is not needed for it; None leaves it to `tar.next`.

    tarfile has read the first member already. Global records of pax change the members behind them.
    """
    plain = None if tar.firstmember is not None or tar.pax_headers else plain_member(file, tar.offset)  # type: ignore[attr-defined]
    if plain is None:
        file.seek(0)  # elsewhere than at the next header, so that tarfile looks whether the file reaches that far
    return plain


def _add_plain(members: Members, member: PlainMember, file: BinaryIO) -> None:
    members.add(member.name, Stored(member.offset, member.size), partial(_is_image, file, member.offset, member.size))


def _add(members: Members, member: tarfile.TarInfo, file: BinaryIO) -> None:
    if member.issparse():
        claimed = f"{member.size} bytes with its zeros"
        lost = member.size > LARGEST_UNPACKED
        members.add_special(member.name, Lost("too large", claimed) if lost else Sparse(member.offset, member.size))
    elif member.isreg():
        _add_plain(members, PlainMember(member.name, member.offset_data, member.size), file)
    elif member.issym() or member.islnk():
        members.add_link(member.name, member.linkname, hard=member.islnk())
    elif not member.isdir():
        members.add_special(
            member.name, Lost("not a file", _KINDS.get(member.type, f"a member of type {member.type!r}"))
        )


def _is_image(file: BinaryIO, offset: int, size: int) -> bool:
    file.seek(offset)
    return looks_like_image(file.read(min(size, IMAGE_HEAD_BYTES)))


def _end_problem(file: BinaryIO, end: int) -> str | None:
    """Check for the two blocks of zeros that end a whole tar; one cut between members shows no other sign."""
    file.seek(end)
    tail = file.read(2 * _BLOCK)
    if tail == bytes(2 * _BLOCK):
        return None
    if any(tail):
        return f"damaged at byte {end}: neither a member nor the end of the archive"
    return "cut short between members: the end-of-archive blocks are missing"


def _following(file: BinaryIO, end: int) -> tuple[int | None, str | None]:
    """Look behind the end of an archive: return where another one begins, or what is wrong with what lies there."""
    place = end + 2 * _BLOCK
    file.seek(place)
    while chunk := file.read(_CHUNK):
        zeros = len(chunk) - len(chunk.lstrip(b"\0"))
        place += zeros
        if zeros == len(chunk):
            continue
        file.seek(place)
        try:
            tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            return None, f"more data behind the end of the archive, at byte {place}, which is no tar"
        return place, None
    return None, None
