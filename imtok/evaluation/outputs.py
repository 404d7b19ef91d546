"""Images that an evaluation writes beside its metrics: all reconstructions as one npz, or the worst, middle and best.

An output belongs to one tokenizer under one protocol. It is written unit by unit, as the metrics are, into a hidden
folder beside its target: a unit is there whole or not at all. So processes share the work, and a killed evaluation goes
on. The first process joins the units once no unit is missing.
"""

# Axes: B batch, n images of a unit, S side of the square.

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from imtok.errors import ConfigError, disk_errors
from imtok.evaluation.samples import are_samples, write_samples
from imtok.files import atomic_writer


class UnitOutput(Protocol):
    """A unit that is being written."""

    def add(self, names: Sequence[str], originals: Tensor, restored: Tensor) -> None:
        """Add images in their order: their keys, and two (B, 3, S, S) uint8 in main memory."""


class Output(ABC):
    """What an evaluation writes for one tokenizer under one protocol, unit by unit."""

    suffix: str  # of a unit's file

    def __init__(self, target: Path, identity: str = "") -> None:
        """Take what to write, and a digest of all that decides its content: units of another content are not used."""
        self.target = target
        self._folder = target.parent / (f".{target.name}.{identity}.units" if identity else f".{target.name}.units")

    def has(self, unit: int) -> bool:
        """Say whether a unit has been written, by this call or one before."""
        return self._path(unit).exists()

    @abstractmethod
    def unit(self, unit: int) -> AbstractContextManager[UnitOutput]:
        """Open a unit; it appears when the block ends well."""

    def finish(self, units: Sequence[int]) -> None:
        """Join units in their order into the target, and delete them; one process calls, with all of them there."""
        with disk_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
        self._join([self._path(unit) for unit in units])
        shutil.rmtree(self._folder, ignore_errors=True)

    @abstractmethod
    def _join(self, files: Sequence[Path]) -> None:
        """Write the target from the files of the units."""

    def _path(self, unit: int) -> Path:
        return self._folder / f"{unit:05d}{self.suffix}"

    @contextmanager
    def _writer(self, unit: int) -> Iterator[BinaryIO]:
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_writer(self._path(unit), durable=False) as file:
            yield file


class Samples(Output):
    """All reconstructions in one npz, in guided-diffusion's layout."""

    suffix = ".rgb"

    def __init__(self, target: Path, size: int, identity: str = "") -> None:
        """Take the file to write and the side of the squares; raises ConfigError where it is a file of another kind."""
        super().__init__(target, identity)
        self._size = size
        if target.exists() and not are_samples(target):
            raise ConfigError(f"{target}: exists and holds no samples; give another name")

    @contextmanager
    def unit(self, unit: int) -> Iterator[UnitOutput]:
        """Open a unit, whose images go to disk batch by batch."""
        with self._writer(unit) as file:
            yield _RawImages(file)

    def _join(self, files: Sequence[Path]) -> None:
        bytes_an_image = 3 * self._size**2
        images = sum(path.stat().st_size for path in files) // bytes_an_image
        batches = (batch for path in files for batch in self._read(path))
        write_samples(self.target, batches, images=images, size=self._size)

    def _read(self, path: Path, images: int = 64) -> Iterator[Tensor]:
        """Yield the images of a unit's file, (B, 3, S, S) uint8 with B at most `images`."""
        with path.open("rb") as file:
            while data := file.read(images * 3 * self._size**2):
                yield torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 3, self._size, self._size)


class _RawImages:
    """Reconstructions one after the other, (3, S, S) bytes each."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, names: Sequence[str], originals: Tensor, restored: Tensor) -> None:
        """Add images in their order."""
        del names, originals
        self._file.write(np.ascontiguousarray(restored.numpy()).data)
