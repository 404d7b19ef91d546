"""The images of a run that streams its shards: what is read before the first step, and the batches after it.

The start reads the images for validation, and in a new run one shard to look at. So it takes as long for a thousand
shards as for ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from imtok.config import DataConfig, TrainConfig
from imtok.counted import counted
from imtok.data.addresses import is_remote, redacted
from imtok.data.batch import TrainingImages
from imtok.data.collection import ImageCollection
from imtok.data.streaming.cache import ShardCache
from imtok.data.streaming.exchange import StoreExchange
from imtok.data.streaming.held_out import first_images, split_shards
from imtok.data.streaming.shard_list import ShardList, find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure, ShardSource, never
from imtok.data.streaming.stream import ShardStream
from imtok.processes import Processes
from imtok.training.resolve import reading_of
from imtok.training.state import TrainState

_LOOKED_AT = 3  # shards, before a run that cannot read one gives up


class StreamedImages:
    """The images of a run that streams its shards."""

    indexed = None  # there is no list of all images

    def __init__(
        self,
        config: TrainConfig,
        reader: ShardReader,
        training: ShardSource,
        held_out: ImageCollection,
        notes: Sequence[str],
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self._should_stop = should_stop
        self.config, self._reader, self._training = config, reader, training
        self.held_out, self.notes = held_out, tuple(notes)

    @classmethod
    def open(
        cls,
        sources: Sequence[str | Path],
        val: Sequence[str | Path],
        config: TrainConfig,
        should_stop: Callable[[], bool] = never,
    ) -> StreamedImages:
        """List the shards of `sources` and read the images for validation, from `val` or else from a part of them.

        Raises SourceError for what cannot be used, ShardFailure where a shard of these images cannot be read.
        """
        data, reading = config.data, reading_of(config.data)
        reader = open_shards(find_shards(sources, reading), data)
        training: ShardSource = reader
        notes: list[str] = []
        if not val:
            training, held_out = split_shards(reader, data.val_fraction, data.val_images, should_stop)
        else:
            held_out, notes = open_validation(val, data, reader.shards, should_stop)
        window = data.chosen_window(len(training.names))
        config = config.model_copy(update={"data": data.model_copy(update={"window": window})})
        return cls(config, reader, training, held_out, notes, should_stop)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the list of shards, and of the images for validation, by their names in a checkpoint."""
        return {"data": self._reader.shards.fingerprint, "val": self.held_out.fingerprint}

    @property
    def shards(self) -> int:
        """The number of shards to train on."""
        return len(self._training.names)

    @property
    def extent(self) -> str:
        """The number of shards to train on, for messages."""
        return counted(self.shards, "shard")

    @cached_property
    def sample(self) -> ImageCollection:
        """The images of the first shard that can be read of the first three.

        Raises ShardFailure where none can, and Interrupted as a shard's reading does.
        """
        return first_shard(self._reader, self._should_stop)

    def batches(
        self, state: TrainState, processes: Processes, should_stop: Callable[[], bool] = never
    ) -> TrainingImages:
        """Return the batches of training crops, for `state.joint` and on its device."""
        config, data, joint = self.config, self.config.data, state.joint
        store = processes.store
        stream = ShardStream(
            self._training,
            width=data.window,
            size=config.tokenizer.size,
            crop=data.crop,
            flip=data.flip,
            permute_channels=data.permute_channels,
            seed=config.seed,
            joint=joint,
            workers=data.workers,
            max_shard_failures=data.allowed_failures(len(self._training.names)),
            reading=self._reader.reading,
            exchange=None if store is None else StoreExchange(store, joint.rank, joint.ranks),
            should_stop=should_stop,
            pin=state.device.type == "cuda",
        )
        self._reader.unreadable = stream.unreadable  # links to nothing join the pictures that cannot be decoded
        stream.notes = self._reader.notes
        return stream


def open_shards(shards: ShardList, data: DataConfig) -> ShardReader:
    """Open a reader of shards with the cache of the configuration."""
    cache = ShardCache(Path(data.shard_cache), int(data.shard_cache_gb * 2**30)) if data.shard_cache else None
    return ShardReader(shards, reading_of(data), cache)


def look_at_shards(sources: Sequence[str | Path], data: DataConfig) -> ImageCollection:
    """Read the images of the first shard that can be read, to choose a configuration by."""
    return first_shard(open_shards(find_shards(sources, reading_of(data)), data))


def first_shard(reader: ShardReader, should_stop: Callable[[], bool] = never) -> ImageCollection:
    """Read the first shard, or one of the two after it; raises the first one's ShardFailure where none can be read."""
    failure: ShardFailure | None = None
    for number in range(min(_LOOKED_AT, len(reader.names))):
        try:
            images = ImageCollection.of(reader.images(number, should_stop), reader.reading)
        except ShardFailure as error:
            failure = failure or error
            continue
        if len(images):
            return images
        failure = failure or ShardFailure(reader.names[number], "holds no image", "give shards of images")
    assert failure is not None, "an empty list of shards"
    raise failure


def open_validation(
    val: Sequence[str | Path],
    data: DataConfig,
    training: ShardList | None = None,
    should_stop: Callable[[], bool] = never,
) -> tuple[ImageCollection, list[str]]:
    """Open the images of `val`, of any kind of source, and note shards that are trained on too.

    Those of shards of other machines are read now, at most `data.val_images`; raises ShardFailure where that fails.
    """
    if not any(is_remote(str(source)) for source in val):
        held_out = ImageCollection.open(val, reading_of(data))
        return held_out, list(held_out.notes)
    reader = open_shards(find_shards(val, reading_of(data)), data)
    shared = set(reader.shards.addresses) & set(training.addresses) if training else set()
    notes = (
        [f"{counted(len(shared), 'shard is', 'shards are')} in --val and trained on too, first {redacted(min(shared))}"]
        if shared
        else []
    )
    return first_images(reader, data.val_images, should_stop), notes
