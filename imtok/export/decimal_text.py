"""Arrays of ids as decimal text, without a Python integer for each."""

# Axes: m rows, T ids of a row.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_LARGEST_TABLE = 1 << 18  # texts; of more ids the digits are computed where they are needed
_CHUNK = 1 << 16  # ids that become text at once, which fit the cache


class DecimalRows:
    """Turns rows of ids in [0, `num_ids`) into text, the ids of a row separated by commas."""

    def __init__(self, num_ids: int) -> None:
        self._width = len(str(max(num_ids - 1, 0)))
        self._table = _texts(np.arange(num_ids), self._width) if num_ids <= _LARGEST_TABLE else None

    def __call__(self, ids: npt.NDArray[np.integer[Any]]) -> Iterator[bytes]:
        """Yield the text of each row: (m, T) -> m times b"12,0,7"."""
        step = max(1, _CHUNK // max(ids.shape[1], 1))
        for start in range(0, len(ids), step):
            yield from self._rows(ids[start : start + step])

    def _rows(self, ids: npt.NDArray[np.integer[Any]]) -> Iterator[bytes]:
        flat = ids.reshape(-1)
        texts = _texts(flat.astype(np.int64), self._width) if self._table is None else self._table[flat]
        letters = texts.reshape(len(ids), -1)
        ends = np.cumsum(np.count_nonzero(letters, axis=1)).tolist()
        text = letters[letters != 0].tobytes()
        for start, end in zip([0, *ends], ends, strict=False):
            yield text[start + 1 : end]  # without the comma before the first id


def _texts(numbers: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    """Return a comma and the digits of each number, with zeros (no letter) between: (m,) -> (m, 1 + width)."""
    texts = np.zeros((len(numbers), 1 + width), np.uint8)
    texts[:, 0] = ord(",")
    rest = numbers
    for place in range(width, 0, -1):
        digits = (rest % 10 + ord("0")).astype(np.uint8)
        texts[:, place] = np.where(rest > 0, digits, 0) if place < width else digits
        rest = rest // 10
    return texts
