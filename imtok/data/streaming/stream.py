"""The endless stream of training crops from shards that are read in order, exact to resume.

Windows of shards are fetched ahead, their images shuffled, decoded and cropped ahead of the trainer. What a batch holds
follows from the seed and from the sizes of the windows (`windows`, `dealing`): not from the clock, from threads, or
from how far the stream has read ahead. So the place that a batch carries is that after the batch.
"""

# Axes: N rows of this rank, S crop.

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from imtok.data.batch import Batch
from imtok.data.crops import Cropping
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.streaming.exchange import Exchange, LocalExchange
from imtok.data.streaming.planner import Planner
from imtok.data.streaming.source import ShardSource, never
from imtok.data.streaming.windows import WindowOrder
from imtok.errors import TrainingError
from imtok.joint_batch import JointBatch


class ShardStream:
    """Batches of random crops from the shards of `source`, in windows of `width` shards, each epoch in its own order.

    Pictures are brought to shorter side `size`, then `crop` x `crop` is taken at random. An unreadable picture is
    replaced by the next one of its window and named in `unreadable`. A shard that fails is left out of its window and
    named in `failures`; more than `max_shard_failures` shards end the run by a TrainingError. Several ranks need an
    `exchange`. A wait for images ends by Interrupted once `should_stop` says so. `pin` puts batches where a GPU can
    fetch them by itself.

    Memory for encoded images: at most 2 * `width` * the bytes of the largest shard.
    """

    def __init__(
        self,
        source: ShardSource,
        *,
        width: int,
        size: int,
        crop: int,
        flip: bool,
        permute_channels: bool = False,
        seed: int,
        joint: JointBatch,
        workers: int,
        max_shard_failures: int,
        reading: Reading = DEFAULT_READING,
        exchange: Exchange | None = None,
        should_stop: Callable[[], bool] = never,
        pin: bool = False,
    ) -> None:
        if exchange is None and joint.ranks > 1:
            raise ValueError(f"{joint.ranks} ranks need an exchange")
        self.source, self.size, self.joint = source, size, joint
        self.order = WindowOrder(len(source.names), width, seed)
        self.cropping = Cropping(crop, flip, permute_channels)
        self.workers, self.max_shard_failures, self.reading = workers, max_shard_failures, reading
        self.exchange = LocalExchange() if exchange is None else exchange
        self.should_stop, self.pin = should_stop, pin
        self.unreadable: dict[str, str] = {}
        self.failures: dict[str, str] = {}  # reasons by the names of shards
        self.notes: Mapping[str, str] = {}  # what a storage notes on shards, by their names

    def batches(self, seen: int, until: int, place: Mapping[str, Any] | None = None) -> Generator[Batch, None, None]:
        """Yield batches from `place` on, the `seen`-th training image, until `until` are seen.

        Raises TrainingError where too many shards fail, where a shard has changed since `place` was recorded, or where
        another rank's window does not come. Close the iterator, or run it to its end: then no thread is left.
        """
        if place is None and seen:
            raise TrainingError("the checkpoint has no place in a stream; it is that of a run without one")
        planner = Planner(self, -(-(until - seen) // self.joint.size), place)
        try:
            yield from planner.batches()
        finally:
            planner.close()
