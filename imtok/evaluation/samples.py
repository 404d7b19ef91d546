"""Reconstructions as guided-diffusion's evaluator reads them: one npz with the array `arr_0`, (N, S, S, 3) uint8.

The layout is that of openai/guided-diffusion, evaluations/evaluator.py, which reads `arr_0` batch by batch. The file is
what `numpy.savez` writes, but the images pass one batch at a time, since 50,000 of 256 x 256 px take 9.8 GB.
"""

# Axes: n images of a batch, N images, S side of the square.

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from imtok.files import atomic_writer

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # in place of the time, so that equal images give equal bytes


def are_samples(path: Path) -> bool:
    """Say whether a file is an npz of the one array `arr_0`; False where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() == ["arr_0.npy"]
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def write_samples(path: Path, batches: Iterable[Tensor], *, images: int, size: int) -> None:
    """Write batches (n, 3, S, S) uint8 in their order to an npz of `images` images of side `size`.

    The file appears whole or not at all. Raises ValueError where the batches hold another number of images or another
    size, and DiskError where the disk refuses.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size, 3)}
    written = 0
    with atomic_writer(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy", _EARLIEST), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for batch in batches:
                if batch.shape[1:] != (3, size, size):
                    raise ValueError(f"images of shape {tuple(batch.shape[1:])}, expected (3, {size}, {size})")
                member.write(np.ascontiguousarray(batch.permute(0, 2, 3, 1).cpu().numpy()).data)
                written += len(batch)
        if written != images:
            raise ValueError(f"{written} images, expected {images}")
