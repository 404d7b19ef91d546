"""Arrays of one shape as the bytes of .npy files; the header is made once."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt


class NpyEncoder:
    """Returns the bytes that `numpy.save` writes for arrays of one shape and type."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        file = io.BytesIO()
        np.save(file, np.empty(shape, dtype))
        self._header = file.getvalue()[: -np.empty(shape, dtype).nbytes]
        self._shape, self._dtype = shape, dtype

    def __call__(self, array: npt.NDArray[Any]) -> bytes:
        """Return the file of an array of this shape and type."""
        if array.shape != self._shape or array.dtype != self._dtype:
            raise ValueError(f"{array.dtype}{list(array.shape)}, expected {self._dtype}{list(self._shape)}")
        return self._header + array.tobytes()
