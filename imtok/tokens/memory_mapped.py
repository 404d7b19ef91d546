"""Arrays of a safetensors file, memory-mapped rather than read.

The library gives numpy copies, or views through torch. A reader of tokens wants neither: it takes a few bytes here
and there, and should not wait for torch to load. Nothing in the header is trusted.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from imtok.tokens.store import StoredFile

DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}


def map_arrays(file: StoredFile) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Map the arrays by name, as read-only views, and read the metadata; raises ValueError on a damaged file.

    An object of a store is read whole, as nothing could map it.
    """
    data = _map_file(file) if isinstance(file, Path) else file.read_bytes()
    size = len(data)
    if size < 8:
        raise ValueError(f"{size} bytes are no safetensors file")
    start = 8 + int.from_bytes(data[:8], "little")
    if start > size:
        raise ValueError(f"cut short: {size} bytes, its header alone needs {start}")
    header = parse_header(data[8:start])
    metadata = header.pop("__metadata__", {})
    arrays = {name: _view(data, start, name, entry) for name, entry in header.items()}
    end = start + sum(array.nbytes for array in arrays.values())
    if end != size:
        raise ValueError(f"{size} bytes where its header describes {end}")
    return arrays, metadata


def _map_file(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return b""  # nothing maps an empty file
        return _mapped(file)


def _mapped(file: BinaryIO) -> mmap.mmap | bytes:
    """Map a file, or read it where its file system maps none, as some in user space and over networks do not."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOSYS, errno.EINVAL, errno.EACCES):
            raise
        file.seek(0)
        return file.read()


def parse_header(data: bytes) -> dict[str, Any]:
    """Return the header of a safetensors file from its JSON; raises ValueError where it is none."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError("its header is not that of a safetensors file")
    return header


def _view(data: mmap.mmap | bytes, start: int, name: str, entry: Any) -> npt.NDArray[Any]:
    try:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        begin, end = entry["data_offsets"]
        if begin < 0 or min(shape, default=0) < 0:
            raise ValueError
        count = math.prod(shape)
        if end - begin != count * dtype.itemsize:
            raise ValueError
        array: npt.NDArray[Any] = np.frombuffer(data, dtype, count, start + begin).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"array {name} does not fit the file") from error
    return array
