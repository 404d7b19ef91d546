"""The end of a job: the manifest, written by the process that finds no unit missing, and the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from imtok.encoding.claims import clear_claims
from imtok.encoding.report import EncodeReport
from imtok.encoding.run import Done
from imtok.encoding.setup import Job
from imtok.encoding.units import count_labels, count_skips, read_entry
from imtok.errors import TokensError
from imtok.parallel import in_order
from imtok.tokens.folder import (
    MANIFEST,
    Manifest,
    ManifestEntry,
    find_shards,
    manifest_to_bytes,
    read_info,
    read_manifest,
)

_READERS = 8  # threads that re-hash shards of other processes


def finish(job: Job, done: Done, share: Sequence[int], before: int) -> EncodeReport:
    """Write the manifest if every unit is there, and report the job.

    `share` are the units of this process, `before` how many of them were committed before this call.
    """
    job.store.flush()
    present, _ = find_shards(job.store)
    complete = all(unit in present for unit in range(len(job.plan)))
    known = read_manifest(job.store) if complete and not done.entries else None
    if known is not None and len(known.entries) < len(job.plan):  # from before its inputs grew
        known = None
    manifest = known or (_write_manifest(job, done, present) if complete else None)
    if manifest:
        entries = manifest.entries[: len(job.plan)]  # another process may have added units meanwhile
    else:
        entries = _entries(job, done, sorted(present & {*share, *done.entries}))
    info = job.info
    labels = None if known else count_labels(job.store, info, job.plan, [entry.unit for entry in entries])
    tokens = math.prod(info.grid) * info.num_codebooks
    return EncodeReport(
        images=sum(entry.images for entry in entries),
        skipped=sum(entry.skipped for entry in entries),
        skips=count_skips(job.store, job.plan, [entry.unit for entry in entries if entry.skipped]),
        failed=tuple(done.failed),
        empty=tuple(job.plan.name(entry.unit) for entry in entries if entry.images + entry.skipped == 0),
        salvaged=tuple(done.salvaged),
        salvaged_images=tuple(done.salvaged_images),
        renamed=done.renamed,
        units_total=len(job.plan),
        units_added=job.units_added,
        units_done=len(done.entries),
        units_before=before,
        labels=labels.describe() if labels and labels.classes else None,
        notes=() if known else (*job.plan.sources.notes, *done.notes),
        label_notes=() if known else (*job.plan.labels.notes, *job.plan.labels.late_notes),
        complete=manifest is not None,
        was_complete=known is not None,
        dataset_id=manifest.dataset_id if manifest else None,
        mean_cut=done.cut / done.images if done.images and info.fit == "crop" else None,
        encoded=done.images,
        enlarged=done.enlargement.enlarged,
        mean_enlargement=done.enlargement.mean_factor,
        size=info.size,
        seconds=done.seconds,
        images_per_second=done.images_per_second,
        grid=info.grid,
        num_codebooks=info.num_codebooks,
        codebook_size=info.codebook_size,
        bits_per_image=tokens * math.log2(info.codebook_size),
        num_crops=info.num_crops,
        ignored=job.plan.sources.ignored - _read_as_labels(job),
        ignored_tars=job.plan.sources.ignored_containers,
    )


def _read_as_labels(job: Job) -> int:
    """Count the files of other kinds that were read as labels of the folder list."""
    labels = job.plan.labels
    taken = labels.found and labels.source in ("cls", "json") and job.settings.reading.rules > 1
    return job.plan.sources.texts.get(labels.numbering.where, 0) if taken else 0


def _write_manifest(job: Job, done: Done, present: set[int]) -> Manifest:
    """Publish the manifest of a complete folder; one that is there already must be equal, or its beginning.

    It has the units that other processes added meanwhile, once all of them are there.
    """
    store, path = job.store, job.store.file(MANIFEST)
    planned = read_info(store).all_units
    if all(unit in present for unit in range(planned)):
        clear_claims(store)
    else:  # another process has added units meanwhile, and has them still to do
        planned = len(job.plan)
    data = manifest_to_bytes(_entries(job, done, range(planned)))
    store.sweep()  # a call killed right here left no unit to encode, before which all calls sweep
    if not store.publish_once(MANIFEST, data) and (before := path.read_bytes()) != data:
        if before.endswith(b"\n") and data.startswith(before) and planned > len(job.plan.parts[0]):
            store.replace(MANIFEST, data)
            return _read_again(job)
        if before.startswith(data) and read_info(store).all_units > planned:
            return _read_again(job)  # another process has added units meanwhile
        raise TokensError(
            f"{path}: not about the units that are there now; delete it and run the same `imtok encode` again if you "
            "trust these"
        )
    return _read_again(job)


def _read_again(job: Job) -> Manifest:
    manifest = read_manifest(job.store)
    assert manifest is not None
    return manifest


def _entries(job: Job, done: Done, units: Sequence[int]) -> tuple[ManifestEntry, ...]:
    """Return the manifest lines of units; shards of other processes and earlier runs are read for them."""

    def entry(unit: int) -> ManifestEntry:
        return done.entries.get(unit) or read_entry(job.store, unit)

    return tuple(in_order(entry, units, workers=_READERS, ahead=4 * _READERS, one_core=False))
