"""Headers of tars as nearly all members have them, read without tarfile, which takes several times as long.

Only what tarfile would take in the very same way is read here: a regular file whose numbers are octal digits in full
width, with or without a record of its time before it, as WebDataset writes them (pax format, POSIX.1-2001). All else is
left to tarfile.
"""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_HALF = 256  # bytes whose sum Adler-32 gives exactly: it counts modulo 65521
# Mode, owner, group, size, time and checksum, from byte 100 on, then the type: a file or a pax record.
_NUMBERS = re.compile(rb"[0-7]{7}[\0 ][0-7]{7}[\0 ][0-7]{7}[\0 ]([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([0x])")
_NUMBERS_AT = 100
_DEVICES = re.compile(rb"(?:[0-7]{7}\0|\0{8}){2}\0")  # two device numbers, and the first byte of an empty prefix
_DEVICES_AT = 329
_TIME = re.compile(rb"(\d{1,3}) mtime=\d+(?:\.\d+)?\n\0*")
_FILE, _RECORD = b"0", b"x"


class PlainMember(NamedTuple):
    """A regular file, whose bytes lie in one piece."""

    name: str
    offset: int  # of its bytes
    size: int

    @property
    def end(self) -> int:
        """The offset of the next header."""
        return self.offset + -(-self.size // _BLOCK) * _BLOCK


def plain_member(file: BinaryIO, offset: int) -> PlainMember | None:
    """Read the member whose first header is at `offset`; None leaves it to tarfile."""
    file.seek(offset)
    block = file.read(_BLOCK)
    found = _header(block)
    if found is None:
        return None
    kind, size = found
    if kind == _RECORD:
        record, block = file.read(_BLOCK), file.read(_BLOCK)
        time = _TIME.fullmatch(record)
        if not 0 < size <= _BLOCK or time is None or int(time[1]) != size or record.find(b"\n") + 1 != size:
            return None
        offset += 2 * _BLOCK
        found = _header(block)
        if found is None or found[0] != _FILE:
            return None
        size = found[1]
    name = block[:_NUMBERS_AT].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return PlainMember(name, offset + _BLOCK, size)


def _header(block: bytes) -> tuple[bytes, int] | None:
    """Return the type and the size that a header states; None where it is not plain or damaged."""
    numbers = _NUMBERS.match(block, _NUMBERS_AT)
    if numbers is None or len(block) < _BLOCK or not _DEVICES.match(block, _DEVICES_AT):
        return None
    # The checksum counts itself as eight spaces.
    total = _sum(block[:_HALF]) + _sum(block[_HALF:]) - _sum(block[148:156]) + 8 * ord(" ")
    return (numbers[3], int(numbers[1], 8)) if total == int(numbers[2], 8) else None


def _sum(data: bytes) -> int:
    """Add up to 256 bytes."""
    return (zlib.adler32(data) & 0xFFFF) - 1
