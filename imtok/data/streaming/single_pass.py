"""One pass over a list of shards in its order, as evaluation makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event

from imtok.data.collection import ImageCollection
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure
from imtok.parallel import in_order


@dataclass(frozen=True)
class PassedShard:
    """The images of one shard in memory."""

    number: int  # in the list of shards
    images: ImageCollection
    lost: int  # images that the shard names but does not hold


class SinglePass:
    """The images of each shard once; the next shard is read while this one is used, so two are in memory.

    At most `allowed_failures` shards may fail, and `failures` has their reasons by name; one more raises its
    ShardFailure. With `limit` the pass ends after so many images. `numbers` names the shards, by default all.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        allowed_failures: int = 0,
        limit: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._reader, self._allowed, self._limit = reader, allowed_failures, limit
        self._numbers = range(len(reader.names)) if numbers is None else numbers
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[PassedShard]:
        left, ended = self._limit, Event()

        def read(number: int) -> PassedShard | ShardFailure:
            known = len(self._reader.unreadable)  # one thread reads, so the new ones are of this shard
            try:
                images = ImageCollection.of(self._reader.images(number, ended.is_set), self._reader.reading)
            except ShardFailure as failure:
                return failure
            return PassedShard(number, images, len(self._reader.unreadable) - known)

        with closing(in_order(read, self._numbers, workers=1, ahead=1, one_core=False)) as shards:
            try:
                for shard in shards:
                    if isinstance(shard, ShardFailure):
                        self._count(shard)
                        continue
                    yield shard if left is None else _cut(shard, left)
                    if left is not None and (left := left - len(shard.images)) <= 0:
                        return
            finally:
                ended.set()  # or the end would wait for a server that says nothing

    def _count(self, failure: ShardFailure) -> None:
        self.failures[failure.name] = failure.reason
        if len(self.failures) > self._allowed:
            advice = f"mend it, or leave it out by --max-shard-failures {self._allowed + 1}"
            raise ShardFailure(failure.name, failure.reason, advice)


def _cut(shard: PassedShard, count: int) -> PassedShard:
    """Return a shard with the first of its images alone."""
    return PassedShard(shard.number, shard.images.only(range(min(count, len(shard.images)))), shard.lost)
