"""The evaluation job: tokenizers measured on the images of SOURCEs, unit by unit, by any number of processes.

Each process measures the units that fall to it and saves what they gave for each tokenizer and protocol. The first
process joins them in their order. So the result is the same to the bit however many processes measured, and however
often they were stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Unpack

from imtok.data.streaming.source import ShardFailure
from imtok.devices import deterministic
from imtok.errors import ConfigError
from imtok.evaluation.folder import EvaluationFolder
from imtok.evaluation.joining import join, result_of
from imtok.evaluation.parts import listed_in, part_to_bytes
from imtok.evaluation.preparation import Job, prepare
from imtok.evaluation.quality import Quality
from imtok.evaluation.result import Result
from imtok.evaluation.settings import Options
from imtok.parallel import one_core_each
from imtok.processes import Processes, joined


def evaluate(tokenizer_path: str | Path, sources: Sequence[str | Path], **options: Unpack[Options]) -> Quality:
    """Measure one tokenizer under one protocol on the images of SOURCEs; otherwise as `evaluate_tokenizers`.

    No weights are fetched by default, and a metric that cannot be measured raises ConfigError.
    """
    if len(options.get("protocols") or ()) > 1:
        raise ConfigError("protocols: evaluate takes one; evaluate_tokenizers takes several")
    with joined() as processes:
        job = prepare([tokenizer_path], sources, {"fetch": False, **options}, processes)
        for name, reason in job.missing.items():
            raise ConfigError(f"metric {name}: {reason}")
        _measure(job, options, processes)
        with one_core_each() if job.settings.one_core else nullcontext():
            return join(job, job.measurers[0], job.entries[0]).quality


def evaluate_tokenizers(
    tokenizers: Sequence[str | Path], sources: Sequence[str | Path], **options: Unpack[Options]
) -> list[Result]:
    """Measure tokenizers on the images of SOURCEs, each under each protocol, in this order.

    URLs, and with `stream` tars of this machine, are read shard by shard in their order. With `output` the same call
    resumes after a kill, and processes that torchrun started share the work; each must reach the folder. More
    protocols and tokenizers may be added to a folder later. Raises ConfigError on what cannot be measured and where the
    folder was begun with other settings, SourceError where not one image can be read, and ShardFailure where more
    than `max_shard_failures` shards fail.
    """
    with joined() as processes:
        job = prepare(tokenizers, sources, options, processes)
        _measure(job, options, processes)
        return [Result.model_validate(result) for result in processes.by_first(lambda: _results(job))]


def _results(job: Job) -> list[dict[str, object]]:
    """Join what was measured, write the results into the folder, and return them as JSON."""
    with one_core_each() if job.settings.one_core else nullcontext():
        found = [
            result_of(job, entry, join(job, measurer, entry)) for measurer in job.measurers for entry in job.entries
        ]
    if isinstance(job.parts, EvaluationFolder):
        job.parts.write_results(found)
    return [result.model_dump(mode="json") for result in found]


def _measure(job: Job, options: Options, processes: Processes) -> None:
    """Measure the missing units, those of this process; returns when all processes are done."""
    numbers, left = processes.by_first(lambda: _missing(job, processes))
    own = numbers[processes.rank :: processes.ranks]
    progress = _Progress(job, own, options)
    with processes.together(), deterministic(job.device, job.settings.precision):
        for unit in job.units.opened(own, left):
            for protocol, measurer in zip(job.protocols, job.measurers, strict=True):
                todo = [entry for entry in job.entries if job.lacks(protocol, entry, unit.number)]
                measured = measurer(unit, todo, progress.add, job.outputs) if todo else []
                for entry, (part, times) in zip(todo, measured, strict=True):
                    job.parts.put(entry.cell(protocol), unit.number, part_to_bytes(part, unit.number), times)
    _share_failures(job, processes)
    processes.by_first(lambda: _finish_outputs(job))


def _finish_outputs(job: Job) -> None:
    """Join the images that were written, once no unit is missing."""
    for outputs in job.outputs.values():
        for output in outputs:
            output.finish([unit for unit in range(len(job.units)) if output.has(unit)])


def _missing(job: Job, processes: Processes) -> tuple[list[int], int | None]:
    """List the units that lack a part, and the number of images left to the limit of a stream."""
    pairs = [(protocol, entry) for protocol in job.protocols for entry in job.entries]
    lacking = [unit for unit in range(len(job.units)) if any(job.lacks(*pair, unit) for pair in pairs)]
    limit = job.settings.limit
    if not job.settings.streamed or limit is None:
        return lacking, None
    if processes.several:
        raise ConfigError(f"--limit {limit}: of a stream only one process can take the first images; leave it out")
    first = min(lacking, default=len(job.units))
    cell = job.entries[0].cell(job.protocols[0])
    left = limit - sum(listed_in(job.parts.get(cell, unit)) for unit in range(first))
    return (list(range(first, len(job.units))), left) if left > 0 else ([], None)


def _share_failures(job: Job, processes: Processes) -> None:
    """Let all processes know the shards that failed; raises ShardFailure where these are too many together."""
    for failures in processes.gather(job.units.failures):
        job.units.failures |= failures
    if len(job.units.failures) > job.allowed_failures:
        name, reason = next(iter(job.units.failures.items()))
        raise ShardFailure(name, reason, f"mend it, or allow more by --max-shard-failures {len(job.units.failures)}")


class _Progress:
    """Images that this process has measured, each once for each entry and protocol."""

    def __init__(self, job: Job, units: Sequence[int], options: Options) -> None:
        self._report, self._done = options.get("progress"), 0
        pairs = [(protocol, entry) for protocol in job.protocols for entry in job.entries]
        sizes = [job.units.size(unit) for unit in units for pair in pairs if job.lacks(*pair, unit)]
        self._total = None if None in sizes else sum(size for size in sizes if size is not None)

    def add(self, images: int) -> None:
        """Count images and report them."""
        self._done += images
        if self._report:
            self._report(self._done, None if self._total is None else self._total)
