"""Units measured under a protocol, for several entries of a table at once: images are read once for all of them.

On request each batch is computed on one core, several batches beside each other. Then its bits do not depend on the
number of cores or processes. Otherwise all cores compute one batch.
"""

# Axes: B batch, S side of the square.

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import NamedTuple

import numpy as np
from torch import Tensor

from imtok.evaluation.entries import Entry
from imtok.evaluation.folder import Cell, Times
from imtok.evaluation.measuring import Batch, batches_of
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import empty_copies
from imtok.evaluation.outputs import Output
from imtok.evaluation.parts import Part
from imtok.evaluation.protocols import Form, Protocol
from imtok.evaluation.quality import Measurement
from imtok.evaluation.settings import Settings
from imtok.evaluation.units import Unit
from imtok.parallel import in_order


class _Measured(NamedTuple):
    """One batch of one entry."""

    measurement: Measurement
    times: Times
    file_bytes: tuple[int, ...]
    restored: Tensor | None  # (B, 3, S, S) uint8, where an output takes it


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
        self,
        unit: Unit,
        entries: Sequence[Entry],
        on_images: Callable[[int], None],
        outputs: Mapping[Cell, Sequence[Output]],
    ) -> list[tuple[Part, Times]]:
        """Measure a unit for each entry; `on_images` takes the number of images of each batch.

        The `outputs` of an entry take its images too.
        """
        size, protocol = self._settings.size, self.protocol
        inputs = len(unit.images)
        parts = [Part(self.empty(each), inputs + unit.lost, inputs) for each in entries]
        times = [Times(beside=self._workers)] * len(entries)
        batches = batches_of(
            unit.images, lambda picture: protocol.prepare(np.asarray(picture), size), self._settings.batch_size
        )
        with ExitStack() as stack:
            writers = [
                [stack.enter_context(output.unit(unit.number)) for output in outputs[each.cell(protocol)]]
                for each in entries
            ]
            stack.enter_context(closing(batches))
            restoring = any(writers)
            for batch, found in stack.enter_context(closing(self._measured(batches, entries, restoring=restoring))):
                keys = [unit.images.key(position) for position in batch.positions] if restoring else []
                for number, measured in enumerate(found):
                    parts[number].add(batch, measured.measurement, measured.file_bytes)
                    times[number] = times[number].plus(measured.times)
                    for writer in writers[number]:
                        assert measured.restored is not None
                        writer.add(keys, batch.pixels, measured.restored)
                    on_images(len(batch.positions))
        return list(zip(parts, times, strict=True))

    def empty(self, entry: Entry) -> Measurement:
        """Return an empty measurement of an entry."""
        return entry.empty(empty_copies(self._metrics))

    def _measured(
        self, batches: Iterator[Batch], entries: Sequence[Entry], *, restoring: bool
    ) -> Generator[tuple[Batch, list[_Measured]], None, None]:
        """Yield batches with what each entry makes of them, in order; with reconstructions where `restoring`."""

        def measured(batch: Batch) -> tuple[Batch, list[_Measured]]:
            expected: dict[Form, Tensor] = {}
            with self._turn:
                return batch, [self._of_batch(each, batch.pixels, expected, restoring=restoring) for each in entries]

        if not self._settings.one_core:
            yield from map(measured, batches)
            return
        with closing(in_order(measured, batches, workers=self._workers, ahead=2 * self._workers)) as results:
            yield from results

    def _of_batch(self, entry: Entry, pixels: Tensor, expected: dict[Form, Tensor], *, restoring: bool) -> _Measured:
        """Restore squares (B, 3, S, S) uint8, and compare."""
        restored = entry.restore(self.protocol, pixels, self._settings.precision)
        measurement = self.empty(entry)
        measurement.update_by(self.protocol, restored.images, pixels, restored.codes, expected)
        levels = self.protocol.pair("uint8", restored.images, pixels)[0].cpu() if restoring else None
        return _Measured(measurement, restored.times, restored.file_bytes, levels)
