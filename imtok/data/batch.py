"""The batches that training takes, from a list of images or from a stream of shards."""

# Axes: N rows of this rank, S crop.

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """This rank's rows of one joint batch."""

    images: Tensor  # (N, 3, S, S) uint8, part after part
    place: Mapping[str, Any] | None = None  # where a stream is after it, as JSON; None where a count of images says it


class TrainingImages(Protocol):
    """An endless source of batches that is exact to resume."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Reasons by the keys of images that could not be read and were replaced."""

    @property
    def failures(self) -> Mapping[str, str]:
        """Reasons by the names of shards that could not be read and were left out."""

    @property
    def notes(self) -> Mapping[str, str]:
        """Sentences by the names of shards: what a person has to know about them."""

    def batches(self, seen: int, until: int, place: Mapping[str, Any] | None = None) -> Generator[Batch, None, None]:
        """Yield batches from the `seen`-th training image on, until `until` are seen.

        `place` is that of the last batch before; None begins a stream.
        """
