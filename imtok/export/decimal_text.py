"""Numbers as decimal text, without a Python integer for each: lines of ids, and pairs of bounds.

Lines of ids are first written into an array of fixed width, padded with zero bytes. All zeros are then dropped
at once.
"""

# Axes: m lines or numbers, T ids of a line.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_LARGEST_TABLE = 1 << 18  # texts; of more ids the digits are computed where they are needed
_CHUNK = 1 << 16  # ids that become text at once, which fit the cache
_POWERS = 10 ** np.arange(1, 19)  # the first numbers of 2, 3 ... digits


class DecimalLines:
    """Writes lines of ids in [0, `num_ids`), separated by commas."""

    def __init__(self, num_ids: int) -> None:
        self._width = len(str(max(num_ids - 1, 0)))
        self._table = _texts(np.arange(num_ids), self._width) if num_ids <= _LARGEST_TABLE else None

    def __call__(self, begins: Sequence[bytes], ids: npt.NDArray[np.integer[Any]], end: bytes) -> Iterator[bytes]:
        """Yield text: lines of what each begins with, its ids (m, T) and what all end in."""
        step = max(1, _CHUNK // ids.shape[1])
        for start in range(0, len(ids), step):
            rows = ids[start : start + step]
            heads = np.array(begins[start : start + step])
            heads = heads.view(np.uint8).reshape(len(rows), heads.itemsize)
            digits = self._texts(rows.reshape(-1)).reshape(len(rows), -1)
            digits[:, 0] = 0  # no comma before the first id
            ends = np.broadcast_to(np.frombuffer(end, np.uint8), (len(rows), len(end)))
            yield np.concatenate((heads, digits, ends), axis=1).tobytes().translate(None, b"\0")

    def _texts(self, ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        if self._table is None:
            return _texts(ids.astype(np.int64), self._width)
        return self._table.take(ids, axis=0)


def pair_lines(numbers: npt.NDArray[np.int64]) -> bytes:
    """Return a line `start,end` for each two neighbours of ascending numbers.

    Numbers of equally many digits are a matrix of digits, and so are their lines: text made number by number takes as
    long as the ids take to be written.
    """
    widths = 1 + np.searchsorted(_POWERS, numbers, side="right")
    lines, last = [], None
    for width in np.unique(widths).tolist():
        same = numbers[widths == width]
        if last is not None:
            lines.append(f"{last},{same[0]}\n".encode())  # the line from one width to the next
        digits = _digits(same, width)
        comma, newline = (np.full((len(same) - 1, 1), ord(sign), np.uint8) for sign in ",\n")
        lines.append(np.hstack([digits[:-1], comma, digits[1:], newline]).tobytes())
        last = same[-1]
    return b"".join(lines)


def _texts(numbers: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    """Return a comma and the digits of each number, with zero bytes between: (m,) -> (m, 1 + width)."""
    digits = _digits(numbers, width)
    for place in range(width - 1):  # leading zeros
        digits[numbers < 10 ** (width - 1 - place), place] = 0
    return np.hstack([np.full((len(numbers), 1), ord(","), np.uint8), digits])


def _digits(numbers: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    """Return the digits of numbers as text: (m,) -> (m, width)."""
    digits = np.empty((len(numbers), width), np.uint8)
    for place in range(width - 1, -1, -1):
        tenths = numbers // 10  # numpy divides fast by one number, slowly by an array
        digits[:, place] = numbers - 10 * tenths + ord("0")
        numbers = tenths
    return digits
