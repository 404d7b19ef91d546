"""The images of a run: those it trains on, those it holds out, and the batches that training takes from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imtok.config import TrainConfig
from imtok.counted import counted
from imtok.data.batch import TrainingImages
from imtok.data.collection import ImageCollection
from imtok.data.stream import TrainingStream
from imtok.data.streaming.source import never
from imtok.errors import SourceError
from imtok.processes import Processes
from imtok.training.resolve import reading_of
from imtok.training.state import TrainState
from imtok.training.streamed_images import StreamedImages, open_validation


class RunImages(Protocol):
    """The images of a run, all that has to be known of them before it begins."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run, with what the sources decide."""

    @property
    def indexed(self) -> ImageCollection | None:
        """All images to train on; None where they are streamed."""

    @property
    def held_out(self) -> ImageCollection:
        """The images for validation."""

    @property
    def sample(self) -> ImageCollection:
        """Images to train on that represent the others: all of a list, those of one shard of a stream."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that a person has to know about the sources."""

    @property
    def shards(self) -> int | None:
        """The number of shards to train on; None of a list of images."""

    @property
    def extent(self) -> str:
        """The number of images or shards to train on, for messages."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the lists of images, by their names in a checkpoint."""

    def batches(
        self, state: TrainState, processes: Processes, should_stop: Callable[[], bool] = never
    ) -> TrainingImages:
        """Return the batches of training crops, for `state.joint` and on its device."""


def open_images(
    sources: Sequence[str | Path],
    val: Sequence[str | Path],
    config: TrainConfig,
    should_stop: Callable[[], bool] = never,
) -> RunImages:
    """Open the images of `sources`, streamed or indexed as `config.data.stream` says, and those for validation.

    Those of `val` are held out, or else a part of `sources`. Raises SourceError where a source cannot be used or none
    holds an image, and Interrupted once `should_stop` says so.
    """
    if config.data.stream is True:
        return StreamedImages.open(sources, val, config, should_stop)
    images = ImageCollection.open(sources, reading_of(config.data))
    if val:
        held_out, notes = open_validation(val, config.data, should_stop=should_stop)
        return _IndexedImages(config, images, held_out, (*images.notes, *notes))
    training, held_out = images.split(config.data.val_fraction)
    return _IndexedImages(config, training, held_out, images.notes)


def check_alike(images: RunImages, processes: Processes) -> None:
    """Raise SourceError where another process found other images."""
    found = processes.gather([images.fingerprints, images.extent, len(images.held_out)])
    for rank, other in enumerate(found):
        if other != found[0]:
            raise SourceError(
                f"rank {rank} found other images than rank 0: {other[1]} to train on and {other[2]} held out, "
                f"where rank 0 has {found[0][1]} and {found[0][2]}; give every machine the same SOURCE and --val"
            )


@dataclass(frozen=True)
class _IndexedImages:
    """The images of a run, all in one list."""

    config: TrainConfig
    indexed: ImageCollection
    held_out: ImageCollection
    notes: Sequence[str]

    @property
    def sample(self) -> ImageCollection:
        """All images to train on."""
        return self.indexed

    @property
    def shards(self) -> None:
        """Return None, as these are images."""
        return

    @property
    def extent(self) -> str:
        """The number of images to train on, for messages."""
        return counted(len(self.indexed), "image")

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the lists of images, by their names in a checkpoint."""
        return {"data": self.indexed.fingerprint, "val": self.held_out.fingerprint}

    def batches(
        self,
        state: TrainState,
        processes: Processes,
        should_stop: Callable[[], bool] = never,  # noqa: ARG002  (a batch of a list is never waited for long)
    ) -> TrainingImages:
        """Return the batches of training crops, for `state.joint` and on its device.

        The processes of a machine share the memory for decoded images.
        """
        config, data = state.config, state.config.data
        return TrainingStream(
            self.indexed,
            size=config.tokenizer.size,
            crop=data.crop,
            flip=data.flip,
            permute_channels=data.permute_channels,
            seed=config.seed,
            joint=state.joint,
            cache_bytes=int(data.cache_gb * 2**30 / processes.local_ranks),
            workers=data.workers,
            pin=state.device.type == "cuda",
        )
