"""The units of one process, encoded and committed one after the other.

The threads of a process work on batches. They begin the next unit while the last one commits, so no thread waits
for the end of a unit.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import torch

from imtok.data.pixels.enlarging import Enlargement
from imtok.devices import deterministic, resolve_device
from imtok.encoding.batches import Batch, Encoded, UnitEncoder
from imtok.encoding.inputs import OnDuplicate
from imtok.encoding.opening import open_ahead
from imtok.encoding.report import EncodeProgress, FailedUnit
from imtok.encoding.setup import Job
from imtok.encoding.taking import Taker
from imtok.encoding.units import build_shard, commit
from imtok.errors import SourceError
from imtok.parallel import NothingYet, in_order
from imtok.tokenizer import Tokenizer
from imtok.tokens.folder import JOURNAL, ManifestEntry


@dataclass(frozen=True)
class Options:
    """Options of one process; none changes a shard that needs no salvaging or renaming."""

    workers: int
    salvage: bool
    on_duplicate: OnDuplicate
    progress: Callable[[EncodeProgress], None] | None
    should_stop: Callable[[], bool] | None
    journal: str  # file name


@dataclass
class Done:
    """Work that a process has done so far."""

    images: int = 0
    skipped: int = 0
    cut: float = 0.0  # sum over the images
    enlargement: Enlargement = field(default_factory=lambda: Enlargement(0))
    failed: list[FailedUnit] = field(default_factory=list)
    salvaged: list[str] = field(default_factory=list)
    renamed: int = 0
    notes: list[str] = field(default_factory=list)  # about containers
    salvaged_images: list[str] = field(default_factory=list)  # the keys of truncated pictures
    entries: dict[int, ManifestEntry] = field(default_factory=dict)  # units committed
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """The rate of the whole process, commits included."""
        return self.images / self.seconds if self.seconds else 0.0


def encode_units(job: Job, taker: Taker, tokenizer: Tokenizer, options: Options) -> Done:
    """Encode and commit what `taker` takes; units whose inputs cannot be used are named in `Done.failed`."""
    device = resolve_device(str(job.settings.device))
    encoder = UnitEncoder(tokenizer.to(device), job.settings)
    run = _Run(job, taker, options)
    with deterministic(device, job.settings.precision):
        more = True
        while more:
            results = in_order(
                encoder,
                run.batches(),
                workers=options.workers,
                ahead=2 * options.workers,
                should_stop=options.should_stop,
            )
            with closing(results):
                for encoded in results:
                    run.take(encoded)
            more = taker.wait(options.should_stop)
    return run.done


class _Run:
    """Batches out, encoded batches back in, shards committed."""

    def __init__(self, job: Job, taker: Taker, options: Options) -> None:
        self.done = Done(enlargement=Enlargement(job.settings.size, job.settings.fit))
        self._job, self._taker, self._options = job, taker, options
        self._open: list[Encoded] = []  # batches of the unit in hand
        self._started = self._unit_started = time.perf_counter()
        self._units = set(taker.own())  # those that this process will have done in the end, as far as is known
        self._taken: set[int] = set()
        self._total = self._count_images()

    def batches(self) -> Iterator[Batch | NothingYet]:
        """All batches of all units, each unit opened when its turn comes."""
        size = self._job.settings.batch_size
        opening = open_ahead(
            self._job.plan, self._units_taken(), salvage=self._options.salvage, on_duplicate=self._options.on_duplicate
        )
        for unit, inputs in opening:
            if inputs is None:
                yield NothingYet()  # meanwhile the units before are committed
                continue
            if isinstance(inputs, SourceError):
                self._fail(unit, str(inputs))
                continue
            count = len(inputs.keys)
            for start in range(0, max(1, count), size):  # a unit without inputs is one batch without images
                stop = min(start + size, count)
                yield Batch(inputs, range(start, stop), last=stop == count)
        self._units = set(self._taken)  # without those that others have taken
        self._total = self._count_images()

    def _units_taken(self) -> Iterator[int]:
        """Yield units as they are taken."""
        for unit in self._taker.units():
            if unit not in self._units and self._total is not None:
                self._total += len(self._job.plan.files(unit))
            self._units.add(unit)
            self._taken.add(unit)
            yield unit

    def take(self, encoded: Encoded) -> None:
        """Take in the next batch, in order; the last of a unit commits it."""
        self._open.append(encoded)
        self.done.images += len(encoded.index)
        self.done.skipped += len(encoded.skips)
        self.done.cut += encoded.cut
        self.done.salvaged_images += encoded.salvaged
        for height, width in encoded.sizes:
            self.done.enlargement.add(height, width)
        if encoded.batch.last:
            self._close_unit()
        self.done.seconds = time.perf_counter() - self._started
        self._report_progress()

    def _close_unit(self) -> None:
        batches, self._open = self._open, []
        unit = batches[0].batch.unit
        unit.close()
        failure = next((batch.failure for batch in batches if batch.failure), None)
        if failure is not None:
            self._fail(unit.number, failure)
            return
        if self._job.has_other_inputs():
            self._fail(unit.number, "its inputs changed meanwhile, another process found; run the same command again")
            return
        entry = commit(self._job.store, build_shard(batches, self._job.info))
        self.done.entries[unit.number] = entry
        self._taker.committed(unit.number)
        self.done.renamed += unit.renamed
        if unit.container is not None:
            self.done.notes += [f"{self._job.plan.name(unit.number)}: {note}" for note in unit.container.notes]
        if unit.salvaged is not None:
            self.done.salvaged.append(f"{self._job.plan.name(unit.number)}: {unit.salvaged}")
        self._note(entry)

    def _fail(self, unit: int, reason: str) -> None:
        name = self._job.plan.name(unit)
        reason = reason.removeprefix(f"{name}: ")
        self.done.failed.append(FailedUnit(unit, name, reason))
        self._taker.failed(unit, name, reason)

    def _note(self, entry: ManifestEntry) -> None:
        """Add a line to the journal, on which nothing relies."""
        now = time.perf_counter()
        seconds, self._unit_started = now - self._unit_started, now
        line = {
            "unit": entry.unit,
            "images": entry.images,
            "skipped": entry.skipped,
            "seconds": round(seconds, 3),
            "images_per_second": round(entry.images / max(seconds, 1e-9), 1),
            "hardware": _hardware(self._job.settings.device),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._job.store.append(f"{JOURNAL}/{self._options.journal}", (json.dumps(line) + "\n").encode())

    def _report_progress(self) -> None:
        if self._options.progress is None:
            return
        self._options.progress(
            EncodeProgress(
                done=self.done.images + self.done.skipped,
                total=self._total,
                skipped=self.done.skipped,
                units_done=len(self.done.entries),
                units_total=len(self._units),
                images_per_second=self.done.images_per_second,
            )
        )

    def _count_images(self) -> int | None:
        plan = self._job.plan
        if any(plan.container(unit) for unit in self._units):
            return None
        return sum(plan.images(unit) for unit in self._units)


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
