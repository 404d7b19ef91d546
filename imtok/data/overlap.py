"""Images for validation that are trained on too: metrics of these say little about new images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from imtok.data.collection import ImageCollection
from imtok.errors import ImageError, SourceError

# Bytes of training images that are read: few files have the very size of another, unless they are uncompressed.
_MOST_BYTES = 2**28


def shared_images(training: ImageCollection, validation: ImageCollection) -> list[str]:
    """Return the keys of those images of `validation` whose bytes are those of an image of `training`.

    Only training images of the same size in bytes are read, so that millions of images cost little. Where these hold
    more than 256 MB, the first of them are read.
    """
    sizes, training_sizes = validation.sizes, training.sizes
    alike = np.flatnonzero(_among(training_sizes, sizes))
    needed = _among(sizes, training_sizes[alike])
    hashes: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in _hashes(validation, np.flatnonzero(needed).tolist()):
        hashes[digest].append(index)
    shared: set[int] = set()
    left = _MOST_BYTES
    for index in alike.tolist():
        left -= int(training_sizes[index])
        if left < 0:
            break
        for _, digest in _hashes(training, [index]):
            shared.update(hashes.get(digest, ()))
    return [validation.key(index) for index in sorted(shared)]


def _among(values: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which values occur among the others."""
    known = np.unique(others)
    if not len(known):
        return np.zeros(len(values), bool)
    found: npt.NDArray[np.bool_] = known[np.searchsorted(known[:-1], values)] == values
    return found


def _hashes(images: ImageCollection, indices: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    """Yield the indices of images that can be read, with the hashes of their bytes."""
    for index in indices:
        try:
            data = images.read(index)
        except (ImageError, SourceError):
            continue  # reported where the image is used
        yield index, hashlib.sha256(data).digest()
