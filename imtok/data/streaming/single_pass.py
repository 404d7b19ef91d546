"""One pass over a list of shards in its order, as evaluation makes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Event

from imtok.data.collection import ImageCollection
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure
from imtok.parallel import in_order


class SinglePass:
    """The images of each shard once; the next shard is read while this one is used, so two are in memory.

    At most `allowed_failures` shards may fail, and `failures` has their reasons by name; one more raises its
    ShardFailure. With `limit` the pass ends after so many images.
    """

    def __init__(self, reader: ShardReader, *, allowed_failures: int = 0, limit: int | None = None) -> None:
        self._reader, self._allowed, self._limit = reader, allowed_failures, limit
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[ImageCollection]:
        left, ended = self._limit, Event()

        def read(number: int) -> ImageCollection | ShardFailure:
            try:
                return ImageCollection.of(self._reader.images(number, ended.is_set), self._reader.reading)
            except ShardFailure as failure:
                return failure

        numbers = range(len(self._reader.names))
        with closing(in_order(read, numbers, workers=1, ahead=1, one_core=False)) as shards:
            try:
                for images in shards:
                    if isinstance(images, ShardFailure):
                        self._count(images)
                        continue
                    yield images if left is None else images.only(range(min(left, len(images))))
                    if left is not None and (left := left - len(images)) <= 0:
                        return
            finally:
                ended.set()  # or the end would wait for a server that says nothing

    def _count(self, failure: ShardFailure) -> None:
        self.failures[failure.name] = failure.reason
        if len(self.failures) > self._allowed:
            advice = f"mend it, or leave it out by --max-shard-failures {self._allowed + 1}"
            raise ShardFailure(failure.name, failure.reason, advice)
