"""Tars of many small members, written in blocks: the samples of a block are one array of bytes.

The members are those of `tarfile` with the same names, sizes and mode 0644, byte for byte: ustar headers, and PAX
headers where a name is longer than 100 bytes or not ASCII. There are no times and no owners, so that the same
members give the same bytes.
"""

# Axes: n samples, L bytes of a member's content.

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError

Bytes = npt.NDArray[np.uint8]
Content = Bytes | Sequence[bytes | None]  # of the members of one suffix: (n, L), or n of any length; None for no member

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tars are filled up to a multiple
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_CHUNK = 1024  # samples whose bytes are put together at once


@dataclass(frozen=True)
class Member:
    """A regular file of a tar."""

    name: str
    data: bytes


class TarWriter:
    """Writes members to an open file; `close` ends the archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._written = file, 0

    def write_samples(self, names: Sequence[str], contents: Mapping[str, Content]) -> None:
        """Append samples: for each name its members `NAME.SUFFIX`, in the order of the suffixes of `contents`."""
        for start in range(0, len(names), _CHUNK):
            part = slice(start, start + _CHUNK)
            some = {suffix: content[part] for suffix, content in contents.items()}
            array = _sample_array(names[part], some)
            if array is not None:
                self._append(array.data)
            else:
                self.write(list(_sample_members(names[part], some)))

    def write(self, members: Sequence[Member]) -> None:
        """Append members of any names and sizes."""
        parts: list[bytes] = []
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size = len(member.data)
            parts += (info.tobuf(tarfile.PAX_FORMAT), member.data, bytes(-info.size % _BLOCK))
        self._append(b"".join(parts))

    def close(self) -> None:
        """Write the end of the archive, without which a cut tar reads as a whole one."""
        self._append(bytes(2 * _BLOCK))
        self._append(bytes(-self._written % _RECORD))

    def _append(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._written += memoryview(data).nbytes


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


def _sample_members(names: Sequence[str], contents: Mapping[str, Content]) -> Iterator[Member]:
    for number, name in enumerate(names):
        for suffix, content in contents.items():
            data = content[number]
            if data is not None:
                yield Member(f"{name}.{suffix}", bytes(data))


def _sample_array(names: Sequence[str], contents: Mapping[str, Content]) -> Bytes | None:
    """Return samples as rows of equal length, None where a name is not short or a member is missing or long."""
    longest = max(map(len, names)) + 1 + max(map(len, contents))
    if longest > _NAME.stop or not all(map(str.isascii, names)):
        return None
    columns = {suffix: _padded(content) for suffix, content in contents.items()}
    if any(column is None for column in columns.values()):
        return None
    name_array, lengths = _matrix([name.encode() for name in names], 100), np.array([*map(len, names)])
    parts = []
    for suffix, column in columns.items():
        assert column is not None
        sizes, data = column
        parts += [_headers(name_array, lengths, f".{suffix}".encode(), sizes), data]
    return np.concatenate(parts, axis=1)


def _padded(content: Content) -> tuple[npt.NDArray[np.int64], Bytes] | None:
    """Return the sizes of members (n,), and their bytes filled up to one number of blocks; None where they differ."""
    if isinstance(content, np.ndarray):
        sizes = np.full(len(content), content.shape[1])
        padding = np.zeros((len(content), -content.shape[1] % _BLOCK), np.uint8)
        return sizes, np.concatenate((content, padding), axis=1)
    present = [data for data in content if data is not None]
    sizes = np.array([*map(len, present)])
    if len(present) < len(content) or sizes.max() > _BLOCK or sizes.min() == 0:
        return None
    return sizes, _matrix(present, _BLOCK)


def _headers(names: Bytes, lengths: npt.NDArray[np.int64], suffix: bytes, sizes: npt.NDArray[np.int64]) -> Bytes:
    """Return ustar headers of names (n, 100), whose letters are `lengths`, and of a suffix: (n, 512)."""
    headers = np.tile(np.frombuffer(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT), np.uint8), (len(names), 1))
    headers[:, _NAME] = names
    headers[np.arange(len(names))[:, None], lengths[:, None] + np.arange(len(suffix))] = np.frombuffer(suffix, np.uint8)
    headers[:, _SIZE.start : _SIZE.stop - 1] = _octal(sizes, 11)
    headers[:, _CHECKSUM] = ord(" ")
    sums = headers.sum(axis=1, dtype=np.uint32).astype(np.int64)
    headers[:, _CHECKSUM.start : _CHECKSUM.stop - 2] = _octal(sums, 6)
    headers[:, _CHECKSUM.stop - 2] = 0
    return headers


def _matrix(strings: Sequence[bytes], width: int) -> Bytes:
    """Return strings as the rows of (n, width), filled up with zeros."""
    return np.array(strings, f"S{width}").view(np.uint8).reshape(len(strings), width)


def _octal(numbers: npt.NDArray[np.int64], digits: int) -> Bytes:
    """Return numbers as octal digits in ASCII: (n,) -> (n, digits)."""
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)
