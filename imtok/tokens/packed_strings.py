"""A list of strings as two arrays, so that a million keys lie in a file and are read one at a time."""

# Axes: N strings, M bytes of all of them together.

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt


class PackedStrings:
    """Strings packed as `data` (M,) uint8, UTF-8, and `offsets` (N+1,) int64; reading one unpacks no other."""

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings."""
        encoded = [string.encode() for string in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(data) for data in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

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

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, stop = self.offsets[index], self.offsets[index + 1]
        return self.data[start:stop].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        for index in range(len(self)):
            yield data[offsets[index] : offsets[index + 1]].decode()
