"""Units measured under a protocol, for several tokenizers at once: images are read once for all of them.

On request each batch is computed on one core, several batches beside each other. Then its bits do not depend on the
number of cores or processes. Otherwise all cores compute one batch.
"""

# Axes: B batch, S side of the square.

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imtok.devices import autocast
from imtok.evaluation.folder import Cell, Times
from imtok.evaluation.measuring import Batch, batches_of, new_measurement
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import empty_copies
from imtok.evaluation.parts import Part
from imtok.evaluation.protocols import Form, Protocol
from imtok.evaluation.quality import Measurement
from imtok.evaluation.settings import Settings
from imtok.evaluation.units import Unit
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer


@dataclass(frozen=True)
class NamedTokenizer:
    """A tokenizer on its device, with what tells it from others."""

    name: str  # as the caller gave it
    tokenizer: Tokenizer
    fingerprint: str
    files_sha256: str  # over its files, the decoder included

    @classmethod
    def of(cls, name: str, tokenizer: Tokenizer) -> NamedTokenizer:
        """Take a loaded tokenizer."""
        digest = hashlib.sha256()
        for file, data in sorted(tokenizer.files().items()):
            digest.update(f"{file}\0{len(data)}\0".encode())
            digest.update(data)
        return cls(name, tokenizer, tokenizer.fingerprint, digest.hexdigest())

    def cell(self, protocol: Protocol) -> Cell:
        """Return the cell of this tokenizer under a protocol."""
        return Cell(protocol.name, self.files_sha256)


class _Measured(NamedTuple):
    """One batch of one tokenizer."""

    measurement: Measurement
    times: Times


class UnitMeasurer:
    """Units to parts, under one protocol."""

    def __init__(self, protocol: Protocol, metrics: Sequence[Metric], settings: Settings, *, workers: int) -> None:
        """Take metrics, which are left empty; of batches on one core each, `workers` are computed beside each other."""
        self.protocol, self._metrics, self._settings = protocol, metrics, settings
        self._workers = workers if settings.one_core else 1
        on_gpu = settings.device == "cuda"
        # Two forwards at once would only double the memory of a GPU; on a CPU each thread has its own core.
        self._turn = threading.Lock() if on_gpu else nullcontext()

    def __call__(
        self, unit: Unit, tokenizers: Sequence[NamedTokenizer], on_images: Callable[[int], None]
    ) -> list[tuple[Part, Times]]:
        """Measure a unit for each tokenizer; `on_images` takes the number of images of each batch."""
        size, protocol = self._settings.size, self.protocol
        inputs = len(unit.images)
        parts = [Part(self.empty(each.tokenizer), inputs + unit.lost, inputs) for each in tokenizers]
        times = [Times(beside=self._workers)] * len(tokenizers)
        batches = batches_of(
            unit.images, lambda picture: protocol.prepare(np.asarray(picture), size), self._settings.batch_size
        )
        with closing(batches), closing(self._measured(batches, tokenizers)) as results:
            for batch, found in results:
                for number, (measurement, seconds) in enumerate(found):
                    parts[number].add(batch, measurement)
                    times[number] = times[number].plus(seconds)
                    on_images(len(batch.positions))
        return list(zip(parts, times, strict=True))

    def empty(self, tokenizer: Tokenizer) -> Measurement:
        """Return an empty measurement of a tokenizer."""
        return new_measurement(tokenizer, empty_copies(self._metrics))

    def _measured(
        self, batches: Iterator[Batch], tokenizers: Sequence[NamedTokenizer]
    ) -> Generator[tuple[Batch, list[_Measured]], None, None]:
        """Yield batches with what each tokenizer makes of them, in order."""

        def measured(batch: Batch) -> tuple[Batch, list[_Measured]]:
            expected: dict[Form, Tensor] = {}
            with self._turn:
                return batch, [self._of_batch(each.tokenizer, batch.pixels, expected) for each in tokenizers]

        if not self._settings.one_core:
            yield from map(measured, batches)
            return
        with closing(in_order(measured, batches, workers=self._workers, ahead=2 * self._workers)) as results:
            yield from results

    def _of_batch(self, tokenizer: Tokenizer, pixels: Tensor, expected: dict[Form, Tensor]) -> _Measured:
        """Encode and decode squares (B, 3, S, S) uint8, and compare."""
        protocol, precision = self.protocol, self._settings.precision
        started = time.perf_counter()
        with autocast(tokenizer.device, precision):
            codes = tokenizer.encode(protocol.to_input(pixels))
            _wait(tokenizer.device)
            encoded = time.perf_counter()
            decoded = tokenizer.decode(codes, clamp=False)
        _wait(tokenizer.device)
        ended = time.perf_counter()
        measurement = self.empty(tokenizer)
        measurement.update_by(protocol, decoded, pixels, codes, expected)
        return _Measured(measurement, Times(encoded - started, ended - encoded, len(pixels)))


def _wait(device: torch.device) -> None:
    """Wait until a GPU has computed, so that times are those of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
