"""Tars of many small members, written in blocks: the headers of a block are one array.

The members are those of `tarfile` with the same names, sizes and mode 0644, byte for byte: ustar headers, and PAX
headers where a name is longer than 100 bytes or not ASCII. There are no times and no owners, so that the same
members give the same bytes.
"""

# Axes: m members.

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tars are filled up to a multiple
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)


@dataclass(frozen=True)
class Member:
    """A regular file of a tar."""

    name: str
    data: bytes


class TarWriter:
    """Writes members to an open file; `close` ends the archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._written = file, 0

    def write(self, members: Sequence[Member]) -> None:
        """Append members."""
        pieces: list[bytes] = []
        for member, header in zip(members, _headers(members), strict=True):
            pieces += (header, member.data, bytes(-len(member.data) % _BLOCK))
        self._append(b"".join(pieces))

    def close(self) -> None:
        """Write the end of the archive, without which a cut tar reads as a whole one."""
        self._append(bytes(2 * _BLOCK))
        self._append(bytes(-self._written % _RECORD))

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)


def read_members(path: Path) -> Iterator[Member]:
    """Yield the members of a tar; raises TokensError where it is damaged, cut or holds anything but files."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is None:
                    raise TokensError(f"{path}: {info.name} is no file; export again")
                data = file.read()
                if len(data) != info.size:
                    raise TokensError(f"{path}: cut within {info.name}; export again")
                yield Member(info.name, data)
    except (OSError, tarfile.TarError) as error:
        raise TokensError(f"{path}: cannot be read as a tar ({error}); export again") from error


def _headers(members: Sequence[Member]) -> list[bytes]:
    names = [member.name.encode() for member in members]
    short = [len(name) <= _NAME.stop and name.isascii() for name in names]
    if all(short):
        return _short_headers(names, [len(member.data) for member in members])
    return [
        _short_headers([name], [len(member.data)])[0] if fits else _long_header(member)
        for member, name, fits in zip(members, names, short, strict=True)
    ]


def _short_headers(names: Sequence[bytes], sizes: Sequence[int]) -> list[bytes]:
    """Return ustar headers of names of 100 ASCII bytes at most."""
    headers = np.tile(np.frombuffer(_template(), np.uint8), (len(names), 1))  # (m, 512)
    headers[:, _NAME] = _matrix(names, 100)
    headers[:, _SIZE.start : _SIZE.stop - 1] = _octal(np.array(sizes, np.int64), 11)
    headers[:, _CHECKSUM] = ord(" ")
    sums = headers.sum(axis=1, dtype=np.int64)
    headers[:, _CHECKSUM.start : _CHECKSUM.stop - 2] = _octal(sums, 6)
    headers[:, _CHECKSUM.stop - 2] = 0
    data = headers.tobytes()
    return [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)]


def _template() -> bytes:
    return tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)


def _long_header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size = len(member.data)
    return info.tobuf(tarfile.PAX_FORMAT)


def _matrix(strings: Sequence[bytes], width: int) -> npt.NDArray[np.uint8]:
    """Return strings as the rows of (m, width), filled up with zeros."""
    return np.array(strings, f"S{width}").view(np.uint8).reshape(len(strings), width)


def _octal(numbers: npt.NDArray[np.int64], digits: int) -> npt.NDArray[np.uint8]:
    """Return numbers as octal digits in ASCII: (m,) -> (m, digits)."""
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)
