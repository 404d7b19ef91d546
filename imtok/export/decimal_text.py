"""Lines of text with the ids of a sequence as decimals, without a Python integer for each.

Each line lies in an array of fixed width first, with a zero byte wherever it is shorter. All zeros are then dropped at
once.
"""

# Axes: m lines, T ids of a line.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_LARGEST_TABLE = 1 << 18  # texts; of more ids the digits are computed where they are needed
_CHUNK = 1 << 16  # ids that become text at once, which fit the cache


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
            digits = self._digits(rows.reshape(-1)).reshape(len(rows), -1)
            digits[:, 0] = 0  # no comma before the first id
            ends = np.broadcast_to(np.frombuffer(end, np.uint8), (len(rows), len(end)))
            yield np.concatenate((heads, digits, ends), axis=1).tobytes().translate(None, b"\0")

    def _digits(self, ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        if self._table is None:
            return _texts(ids.astype(np.int64), self._width)
        return self._table.take(ids, axis=0)


def _texts(numbers: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    """Return a comma and the digits of each number, with zero bytes between: (m,) -> (m, 1 + width)."""
    texts = np.zeros((len(numbers), 1 + width), np.uint8)
    texts[:, 0] = ord(",")
    rest = numbers
    for place in range(width, 0, -1):
        digits = (rest % 10 + ord("0")).astype(np.uint8)
        texts[:, place] = np.where(rest > 0, digits, 0) if place < width else digits
        rest = rest // 10
    return texts
