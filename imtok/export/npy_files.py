"""Arrays of one shape as the bytes of .npy files; the header is made once."""

# Axes: n arrays, L bytes of a file.

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt


def npy_files(arrays: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes that `numpy.save` writes for each array of (n, ...): (n, L)."""
    one = np.zeros(arrays.shape[1:], arrays.dtype)
    file = io.BytesIO()
    np.save(file, one)
    header = np.frombuffer(file.getvalue()[: file.tell() - one.nbytes], np.uint8)
    data = np.ascontiguousarray(arrays).view(np.uint8).reshape(len(arrays), one.nbytes)
    return np.concatenate((np.broadcast_to(header, (len(arrays), len(header))), data), axis=1)
