"""The header of `.bin` files of llm.c, which NeMo Automodel took over: 256 int32 numbers, of which the first count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imtok.export.format import ExportPlan, Piece, ReadImage
from imtok.export.rows import Numbers, check_equal, check_size, ids_in, read_rows

_NUMBERS = 256
_MEANT = 4  # numbers, from the first on


def make_header(*numbers: int) -> Numbers:
    """Return a header that begins with these numbers: int32 (256,)."""
    header = np.zeros(_NUMBERS, "<i4")
    header[: len(numbers)] = numbers
    return header


def read_after_header(path: Path, header: Numbers, piece: Piece, plan: ExportPlan) -> Iterator[ReadImage]:
    """Read the images of a file; raises TokensError unless it has this header and the exact size."""
    check_size(path, header.nbytes + ids_in(piece, plan) * plan.dtype.itemsize)
    found = np.fromfile(path, header.dtype, _NUMBERS)
    check_equal(path, "header", found[:_MEANT].tolist(), header[:_MEANT].tolist())
    yield from read_rows(path, piece, plan, start=header.nbytes)
