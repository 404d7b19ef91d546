"""Whole numbers that come one after the other, in the type that takes the least memory."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

_WIDE = "q"  # int64


class GrowingNumbers:
    """Numbers as an array of 4 bytes each, by its type code `i` or `I`, until one does not fit; then of 8 bytes."""

    def __init__(self, code: str) -> None:
        self._numbers = array(code)

    def append(self, number: int) -> None:
        """Add a number."""
        try:
            self._numbers.append(number)
        except OverflowError:
            self._widen()
            self._numbers.append(number)

    def extend(self, numbers: npt.NDArray[np.int64]) -> None:
        """Add numbers (N,) in order."""
        while True:
            own = numbers.astype(np.dtype(self._numbers.typecode))
            if self._numbers.typecode == _WIDE or np.array_equal(own, numbers):
                self._numbers.frombytes(own.tobytes())
                return
            self._widen()

    def cut(self, count: int) -> None:
        """Keep the first `count` numbers alone."""
        del self._numbers[count:]

    def packed(self) -> npt.NDArray[Any]:
        """Return the numbers (N,) so far, without a copy: no more can be added."""
        return np.frombuffer(self._numbers, np.dtype(self._numbers.typecode))

    def _widen(self) -> None:
        self._numbers = array(
            _WIDE, np.frombuffer(self._numbers, np.dtype(self._numbers.typecode)).astype(np.int64).tobytes()
        )

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> int:
        return self._numbers[index]
