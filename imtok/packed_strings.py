"""A list of strings as two arrays, so that a million keys lie in a file and are read one at a time."""

# Axes: N strings, M bytes of all of them together.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.packed_numbers import GrowingNumbers

_CHUNK = 4096  # strings that are unpacked at once
_SPARSE = 8  # times as many bytes as are needed are copied rather than each string alone


class PackedStrings:
    """Strings packed as `data` (M,) uint8, UTF-8, and `offsets` (N+1,) int64; reading one unpacks no other.

    In memory alone, `offsets` may be uint32.
    """

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[Any]) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings."""
        growing = GrowingStrings()
        for string in strings:
            growing.add(string.encode())
        return growing.packed()

    def problem(self) -> str | None:
        """Name the damage of the arrays, None where every string can be read."""
        offsets = self.offsets
        if self.data.ndim != 1 or offsets.ndim != 1:
            return "its arrays are not flat"
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(self.data) or (np.diff(offsets) < 0).any():
            return "its offsets do not cover its bytes"
        starts = self.data[offsets[:-1][offsets[:-1] < len(self.data)]]
        try:
            self.data.tobytes().decode()
        except UnicodeDecodeError:
            return "its bytes are not UTF-8"
        # A byte 10xxxxxx continues a character that began in the string before.
        return "a string begins within a character" if ((starts & 0xC0) == 0x80).any() else None

    def take(self, indices: npt.NDArray[np.int64]) -> PackedStrings:
        """Return the strings with these indices, in their order, with offsets of the same type."""
        growing = GrowingStrings(offsets=GrowingNumbers("I") if self.offsets.itemsize == 4 else None)
        for start in range(0, len(indices), _CHUNK):
            for string in self.encoded_at(indices[start : start + _CHUNK]):
                growing.add(string)
        return growing.packed()

    def encoded(self, index: int) -> bytes:
        """Return one string as UTF-8."""
        data, offsets = self._views
        return bytes(data[offsets[index] : offsets[index + 1]])

    def encoded_at(self, indices: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the strings with these indices as UTF-8, best for indices that lie near each other."""
        if not len(indices):
            return []
        first, last = int(self.offsets[indices.min()]), int(self.offsets[indices.max() + 1])
        starts, stops = self.offsets[indices] - first, self.offsets[indices + 1] - first
        if last - first > _SPARSE * int((stops - starts).sum()) + _SPARSE:
            return [self.encoded(index) for index in indices.tolist()]
        data = self.data[first:last].tobytes()
        return [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.encoded(index).decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            for string in self.encoded_at(np.arange(start, min(start + _CHUNK, len(self)))):
                yield string.decode()

    @cached_property
    def _views(self) -> tuple[Any, Any]:
        """The arrays in a form that gives single values several times faster than arrays do."""
        # Out of a file they need not begin at a multiple of 8 bytes, which a memoryview of numbers does.
        data, offsets = self.data.data, self.offsets.data if self.offsets.flags.aligned else self.offsets
        return data, offsets

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedStrings, (self.data, self.offsets)


class GrowingStrings:
    """Strings that are packed one after the other as they come."""

    def __init__(self, *, offsets: GrowingNumbers | None = None) -> None:
        """Begin without strings; `offsets` other than int64 are for lists that stay in memory."""
        self._data = bytearray()
        self._offsets = GrowingNumbers("q") if offsets is None else offsets
        self._offsets.append(0)

    def add(self, string: bytes) -> None:
        """Add a string as UTF-8."""
        self._data += string
        self._offsets.append(len(self._data))

    def extend(self, strings: Sequence[bytes]) -> None:
        """Add strings as UTF-8."""
        ends = np.fromiter(map(len, strings), np.int64, len(strings)).cumsum()
        self._offsets.extend(len(self._data) + ends)
        self._data += b"".join(strings)

    def cut(self, count: int) -> None:
        """Keep the first `count` strings alone."""
        del self._data[self._offsets[count] :]
        self._offsets.cut(count + 1)

    def encoded(self, index: int) -> bytes:
        """Return one string as UTF-8."""
        return bytes(self._data[self._offsets[index] : self._offsets[index + 1]])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def packed(self) -> PackedStrings:
        """Return the strings so far, without a copy: no more can be added."""
        return PackedStrings(np.frombuffer(self._data, np.uint8), self._offsets.packed())
