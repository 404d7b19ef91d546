"""The reader of zip files: their members by the directory at the end, each then read from its own place."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from imtok.data.archives.members import LARGEST_UNPACKED, Lost, Members
from imtok.data.containers import Container
from imtok.data.pixels.formats import HEAD_BYTES, looks_like_image
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.storage import storage_of
from imtok.errors import ImageError, SourceError

_ENCRYPTED = 0x1  # bits of a member's flags
_UTF8 = 0x800
_DOS = 0  # the system on which an archive was made
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
# Of a local header: signature, flags, method, checksum, bytes packed and unpacked, lengths of name and extra field.
_LOCAL_HEADER = struct.Struct("<4s2xHH4xIIIHH")
_IN_EXTRA_FIELD = 0xFFFFFFFF  # in place of bytes that need more than 32 bits
_SIZES_FOLLOW = 0x8
_END = b"PK\x05\x06"  # begins the record that ends a zip file
_END_BYTES = 22 + 65535  # of that record with the longest comment
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, struct.error)
_LINK_BYTES = 4096  # of a link's target


@dataclass(frozen=True, slots=True)
class Packed:
    """A member of a zip file."""

    offset: int  # of its local header
    packed: int  # bytes
    size: int  # bytes, unpacked
    method: int
    checksum: int
    archive_size: int  # bytes of the whole file

    def read(self, address: str) -> bytes:
        """Unpack the bytes and compare their checksum; raises ImageError where they are damaged."""
        with storage_of(address).open(address) as file:
            data = self.unpack(file, self.size)
        if data is not None and len(data) == self.size:
            return data
        if storage_of(address).size(address) != self.archive_size:
            raise SourceError(f"{address}: the file changed while it was read")
        raise ImageError("corrupt", "its bytes in the zip file are damaged")

    def unpack(self, file: BinaryIO, size: int) -> bytes | None:
        """Unpack the first `size` bytes, never more than the member claims to have; None where they are damaged."""
        file.seek(self.offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            return None
        *_, name, extra = _LOCAL_HEADER.unpack(header)
        file.seek(self.offset + _LOCAL_HEADER.size + name + extra)
        member = zipfile.ZipInfo("member")
        member.compress_type, member.compress_size = self.method, self.packed
        member.file_size, member.CRC = self.size, self.checksum
        try:
            with zipfile.ZipExtFile(file, "r", member, close_fileobj=False) as content:
                return content.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            return None  # damage, in the words of bz2
        except _DAMAGE:
            return None


def open_zip(address: str, reading: Reading = DEFAULT_READING) -> Container:
    """Read the directory of a zip file; `problem` reports damage. Raises OSError where the file cannot be read."""
    size = storage_of(address).size(address)
    if size == 0:
        return Container(0, (), "the file is empty (0 bytes)", salvageable=False)
    members = Members(address, reading)
    with storage_of(address).open(address) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                found = archive.infolist()
                problem = _problem_before(file, found)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            whole = file.seek(0) == 0 and not file.read(4).startswith(b"PK")
            problem = f"not a zip file ({error})" if whole else f"cut short or damaged ({error})"
            found = _without_directory(file, size)
        for member in found:
            _add(members, member, file, size)
    container = members.container(size, problem)
    return replace(container, salvageable=bool(container.images) or problem is None)


def _without_directory(file: BinaryIO, size: int) -> list[zipfile.ZipInfo]:
    """Return the whole members before the damage by their local headers, up to one that does not say how long it is.

    A local header does not tell links from files, so the target of a link is read for the bytes of an image.
    """
    found: list[zipfile.ZipInfo] = []
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            return found
        _, flags, method, checksum, packed, unpacked, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        name = file.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        offset_of_next = offset + _LOCAL_HEADER.size + name_length + extra_length + packed
        if not name or flags & _SIZES_FOLLOW or _IN_EXTRA_FIELD in (packed, unpacked) or offset_of_next > size:
            return found
        member = zipfile.ZipInfo(name)
        member.flag_bits, member.compress_type, member.CRC = flags, method, checksum
        member.header_offset, member.compress_size, member.file_size = offset, packed, unpacked
        found.append(member)
        offset = offset_of_next


def _add(members: Members, member: zipfile.ZipInfo, file: BinaryIO, archive_size: int) -> None:
    name = _name_of(member)
    if name.endswith("/"):
        return
    packed = Packed(
        member.header_offset,
        member.compress_size,
        member.file_size,
        member.compress_type,
        member.CRC,
        archive_size,
    )
    lost = _lost(member)
    if lost is None and stat.S_ISLNK(member.external_attr >> 16):
        target = packed.unpack(file, packed.size) if packed.size <= _LINK_BYTES else None
        members.add_link(name, (target or b"").decode("utf-8", "surrogateescape"), hard=False)
    else:
        members.add(name, lost or packed, partial(_is_image, packed, file) if lost is None else None)


def _lost(member: zipfile.ZipInfo) -> Lost | None:
    """Return why the bytes of a member cannot be had; None where they can."""
    if member.flag_bits & _ENCRYPTED:
        return Lost("encrypted", "imtok asks for no passwords; unzip the file first")
    if member.compress_type not in _METHODS:
        return Lost("unsupported compression", f"method {member.compress_type}; unzip the file first")
    if member.file_size > LARGEST_UNPACKED:
        return Lost("too large", f"it claims {member.file_size} bytes unpacked")
    return None


def _name_of(member: zipfile.ZipInfo) -> str:
    """Return the name of a member with slashes, in the encoding that was meant.

    Names are in CP437 unless a flag says UTF-8. Many programs forget the flag, and text in CP437 is hardly ever
    valid UTF-8. Old programs of Windows write backslashes.
    """
    name = member.filename
    if not member.flag_bits & _UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = member.filename
    return name.replace("\\", "/") if member.create_system == _DOS and "/" not in name else name


def _is_image(packed: Packed, file: BinaryIO) -> bool:
    return looks_like_image(packed.unpack(file, min(packed.size, HEAD_BYTES)) or b"")


def _problem_before(file: BinaryIO, members: list[zipfile.ZipInfo]) -> str | None:
    """Look for another zip file before the first member, as `cat a.zip b.zip` makes: its members are not listed."""
    first = min((member.header_offset for member in members), default=0)
    file.seek(max(0, first - _END_BYTES))
    if first and _END in file.read(min(first, _END_BYTES)):
        return f"another zip file before byte {first}, whose members cannot be listed"
    return None
