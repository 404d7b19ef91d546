"""The images of a run: those it trains on, those it holds out, and the batches that training takes from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imtok.config import TrainConfig
from imtok.data.batch import TrainingImages
from imtok.data.collection import ImageCollection
from imtok.data.stream import TrainingStream
from imtok.errors import SourceError
from imtok.processes import Processes
from imtok.training.resolve import reading_of
from imtok.training.state import TrainState


@dataclass(frozen=True)
class RunImages:
    """The images of a run, all found before it begins."""

    training: ImageCollection
    held_out: ImageCollection  # for validation
    notes: tuple[str, ...]  # what a person has to know about the sources

    @classmethod
    def open(cls, sources: Sequence[str | Path], val: Sequence[str | Path], config: TrainConfig) -> RunImages:
        """Find the images of `sources`; those of `val` are held out, or else a part of `sources`.

        Raises SourceError where a source cannot be used or none holds an image.
        """
        reading = reading_of(config.data)
        images = ImageCollection.open(sources, reading)
        if val:
            held_out = ImageCollection.open(val, reading)
            return cls(images, held_out, (*images.notes, *held_out.notes))
        training, held_out = images.split(config.data.val_fraction)
        return cls(training, held_out, images.notes)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the lists of images, by their names in a checkpoint."""
        return {"data": self.training.fingerprint, "val": self.held_out.fingerprint}

    def check_alike(self, processes: Processes) -> None:
        """Raise SourceError where another process found other images."""
        found = processes.gather([self.fingerprints, len(self.training), len(self.held_out)])
        for rank, other in enumerate(found):
            if other != found[0]:
                raise SourceError(
                    f"rank {rank} found other images than rank 0: {other[1]} to train on and {other[2]} held out, "
                    f"where rank 0 has {found[0][1]} and {found[0][2]}; give every machine the same SOURCE and --val"
                )

    def batches(self, state: TrainState, processes: Processes) -> TrainingImages:
        """Return the batches of training crops, for `state.joint` and on its device.

        The processes of a machine share the memory for decoded images.
        """
        config, data = state.config, state.config.data
        return TrainingStream(
            self.training,
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
