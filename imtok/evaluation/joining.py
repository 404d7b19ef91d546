"""The units of an evaluation joined in their order: rows become metrics, whoever measured them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from imtok.data.pixels.enlarging import Enlargement
from imtok.errors import ConfigError, SourceError
from imtok.evaluation.cells import UnitMeasurer
from imtok.evaluation.codecs import larger
from imtok.evaluation.entries import Entry, NamedCodec
from imtok.evaluation.folder import Times
from imtok.evaluation.parts import Part, part_from_bytes
from imtok.evaluation.preparation import Job
from imtok.evaluation.protocols import Protocol
from imtok.evaluation.quality import Quality
from imtok.evaluation.rates import rate_of
from imtok.evaluation.result import Result


class Joined(NamedTuple):
    """What all units together say of an entry under a protocol."""

    quality: Quality
    part: Part  # of all units
    times: Times


def join(job: Job, measurer: UnitMeasurer, entry: Entry) -> Joined:
    """Join the parts of an entry under the protocol of `measurer`; raises SourceError where no image can be read."""
    cell, settings = entry.cell(measurer.protocol), job.settings
    whole, times = Part(measurer.empty(entry)), Times()
    for unit in range(len(job.units)):
        if settings.streamed and settings.limit is not None and whole.listed >= settings.limit:
            break
        if job.units.name(unit) in job.units.failures:
            continue
        try:
            data = job.parts.get(cell, unit)
        except OSError as error:
            name = job.parts.name(cell, unit)
            raise ConfigError(f"{name}: {error.strerror or error}; run the same command again") from error
        part = part_from_bytes(data, measurer.empty(entry), unit, job.parts.name(cell, unit))
        whole.merge(part)
        times = job.parts.times(cell, unit).plus(times)
    return Joined(_quality(job, measurer.protocol, whole), whole, times)


def _quality(job: Job, protocol: Protocol, whole: Part) -> Quality:
    """Compute the metrics of all units."""
    settings, images = job.settings, whole.measurement.images
    if not images:
        raise SourceError(f"no image of {whole.inputs} can be read; `imtok encode` says why")
    seen = Enlargement(settings.size)
    for original in whole.sizes:
        seen.add(*original)
    quality = whole.measurement.quality_by(
        protocol, skipped=whole.inputs - images, size=settings.size, precision=settings.precision, ranks=job.ranks
    )
    return replace(
        quality,
        enlarged=seen.enlarged,
        mean_enlargement=seen.mean_factor,
        failed_shards=dict(job.units.failures),
    )


def result_of(job: Job, entry: Entry, joined: Joined) -> Result:
    """Return what was joined as a record."""
    quality, times = joined.quality, joined.times
    is_codec = isinstance(entry, NamedCodec)
    usage = {name: value for name, value in quality.usage.as_dict().items() if name != "images"}
    coded = rate_of(joined.part.measurement.counts, quality.images, quality.size).coded_bits_per_image
    file_bits = 8 * sum(joined.part.file_bytes) / quality.images
    return Result(
        tokenizer=entry.name,
        fingerprint=entry.fingerprint,
        files_sha256=entry.files_sha256,
        origin=entry.origin,
        protocol_name=quality.protocol_name,
        protocol=quality.protocol,
        ranks=job.ranks,
        images=quality.images,
        images_sha256=hashlib.sha256(np.array(joined.part.digests, np.int64).astype(">i8").tobytes()).hexdigest(),
        skipped=quality.skipped,
        failed_shards=dict(quality.failed_shards),
        size=quality.size,
        precision=quality.precision,
        metrics=quality.values,
        intervals={name: tuple(interval) for name, interval in quality.intervals.items()},
        refused=dict(quality.refused) | job.missing,
        weights={name: digest for name, digest in job.settings.metrics.items() if digest},
        exact=quality.exact,
        bits_per_image=file_bits if is_codec else quality.bits_per_image,
        coded_bits_per_image=None if is_codec else coded,
        larger=larger(joined.part.file_bytes, entry.allowed) if isinstance(entry, NamedCodec) else None,
        usage={} if is_codec else usage,
        enlarged=quality.enlarged,
        mean_enlargement=quality.mean_enlargement,
        encode_images_per_second=_rate(times, times.encode),
        decode_images_per_second=_rate(times, times.decode),
    )


def _rate(times: Times, seconds: float) -> float | None:
    """Return images a second of one process; None where no times were kept."""
    return times.images * times.beside / seconds if seconds else None
