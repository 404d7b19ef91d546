"""The images of a stream that are held out for validation.

Whole shards are held out, chosen by their stems, where the share comes to one shard at least. Of fewer shards single
images are held out, chosen by their keys as those of a folder are. Either way the choice needs no count of images,
and it is the same in every process and after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imtok.data.collection import ImageCollection, chosen_by_position, position_of
from imtok.data.containers import SourceImage
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure, ShardSource, never
from imtok.errors import SourceError

_FIRST_SHARDS = 4  # are read even where one has images enough: a shard may hold one class alone


def split_shards(
    reader: ShardReader, val_fraction: float, most: int, should_stop: Callable[[], bool] = never
) -> tuple[ShardSource, ImageCollection]:
    """Return the shards to train on and at most `most` images to validate with, which are read now.

    Raises SourceError where a shard of the images for validation cannot be read, and Interrupted as `read` does.
    """
    try:
        return _split(reader, val_fraction, most, should_stop)
    except ShardFailure as error:  # other images would be validated with after a resume
        raise SourceError(
            f"{error}; the images held out for validation lie in it, so mend it, leave it out of SOURCE, or give --val"
        ) from None


def _split(
    reader: ShardReader, val_fraction: float, most: int, should_stop: Callable[[], bool]
) -> tuple[ShardSource, ImageCollection]:
    if val_fraction == 0:
        return reader, ImageCollection.of([], reader.reading)
    if round(val_fraction * len(reader.names)) >= 1 and len(reader.names) > 1:
        positions = np.array([position_of(stem.encode()) for stem in reader.shards.stems])
        held_out = chosen_by_position(positions, val_fraction)
        training, validation = (reader.only(np.flatnonzero(held_out == kind).tolist()) for kind in (False, True))
        return training, first_images(validation, most, should_stop)
    images = first_images(reader, most, should_stop, lambda key: position_of(key.encode()) < val_fraction)
    if len(images):
        return _Others(reader, val_fraction), images
    everything = first_images(
        reader, most, should_stop
    )  # few images: the first by position is held out, as of a folder
    if len(everything) < 2:
        return reader, images
    positions = np.array([position_of(key.encode()) for key in everything.keys])
    limit = float(np.nextafter(positions.min(), 1))
    return _Others(reader, limit), everything.only(np.flatnonzero(positions < limit))


def first_images(
    reader: ShardReader,
    most: int,
    should_stop: Callable[[], bool] = never,
    chosen: Callable[[str], bool] = lambda _: True,
) -> ImageCollection:
    """Read whole shards until `most` chosen images are found, four shards at least; take them evenly spaced."""
    found: list[SourceImage] = []
    for number in range(len(reader.names)):
        if number >= _FIRST_SHARDS and len(found) >= most:
            break
        found += [image for image in reader.images(number, should_stop) if chosen(image.key)]
    taken = found if len(found) <= most else [found[index * len(found) // most] for index in range(most)]
    return ImageCollection.of(taken, reader.reading)


class _Others:
    """Shards without the images that are held out by key."""

    def __init__(self, reader: ShardReader, limit: float) -> None:
        self._reader, self._limit = reader, limit

    @property
    def names(self) -> Sequence[str]:
        """Redacted addresses of the shards."""
        return self._reader.names

    def read(self, number: int, should_stop: Callable[[], bool] = never) -> Sequence[tuple[str, bytes]]:
        """Read the images of one shard that are not held out, which may be none; raises as the shard's reader does."""
        images = self._reader.read(number, should_stop)
        return [(key, data) for key, data in images if position_of(key.encode()) >= self._limit]
