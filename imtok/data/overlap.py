"""Images for validation that are trained on too: metrics of these say little about new images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

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
    wanted = set(sizes)
    alike = [index for index, size in enumerate(training_sizes) if size in wanted]
    needed = {training_sizes[index] for index in alike}
    hashes: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in _hashes(validation, (index for index, size in enumerate(sizes) if size in needed)):
        hashes[digest].append(index)
    shared: set[int] = set()
    left = _MOST_BYTES
    for index in alike:
        left -= training_sizes[index]
        if left < 0:
            break
        for _, digest in _hashes(training, [index]):
            shared.update(hashes.get(digest, ()))
    return [validation.keys[index] for index in sorted(shared)]


def _hashes(images: ImageCollection, indices: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    """Yield the indices of images that can be read, with the hashes of their bytes."""
    for index in indices:
        try:
            data = images.read(index)
        except (ImageError, SourceError):
            continue  # reported where the image is used
        yield index, hashlib.sha256(data).digest()
