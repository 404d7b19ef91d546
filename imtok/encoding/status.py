"""The state of an encoding job, as its token folder shows it: for people and programs that look on.

A unit is committed when its shard is there; everything else is a hint: claims say who works on a unit, records of
failures why one is missing, and the journal how fast. Nothing is changed, whoever works in the folder meanwhile.
"""

# Axes: U units of all lists of inputs.

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from imtok.encoding.claims import Claim, Failure, read_claims, read_failures
from imtok.encoding.leases import LEASE_SECONDS
from imtok.encoding.share import Share
from imtok.errors import ConfigError, TokensError
from imtok.tokens.folder import JOURNAL, TokensInfo, find_shards, read_info, read_manifest, shard_path
from imtok.tokens.plan import Extension
from imtok.tokens.shard_counts import ShardCounts, read_shard_counts
from imtok.tokens.store import Location, Store, store_of

_READERS = 8  # threads that read shards
_RECENT = 8  # units of a process that its rate is taken from


@dataclass(frozen=True, kw_only=True)
class EncodeStatus:
    """The state of a job: `units_done` and `units_missing` are all units; missing ones are held, failed or waiting."""

    path: str  # of the token folder, without secrets
    complete: bool  # the manifest is there and has all units
    dataset_id: str | None  # SHA-256 of the manifest, of a complete folder
    units: int
    units_done: int  # committed
    units_missing: int
    units_held: int  # missing, and a living process works on it
    units_failed: int  # missing, and failed when it was tried last
    units_waiting: int  # missing, and neither held nor failed
    images: int  # in committed units
    skipped: int
    skips: Mapping[str, int]  # by reason, the most frequent first
    held: tuple[Claim, ...]  # of units_held
    failed: tuple[Failure, ...]
    damaged: tuple[int, ...]  # committed units whose shard cannot be read; they count no images
    manifest_problem: str | None  # why the manifest cannot be read, and what to do; None without one
    images_per_second: float | None  # of the processes that hold units, together; None where nobody works
    seconds_left: float | None  # None where nobody works, and where no container shows how many images one has

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON has it."""
        return asdict(self) | {
            "skips": dict(self.skips),
            "held": [claim.model_dump(exclude={"beat", "lease", "held"}) for claim in self.held],
            "failed": [failure.model_dump() for failure in self.failed],
            "damaged": list(self.damaged),
        }


def read_status(location: Location) -> EncodeStatus:
    """Read the state of a token folder once; raises TokensError where it is none."""
    return StatusReader(location).read()


class StatusReader:
    """A reader of the state of one token folder, again and again: committed shards are counted once each."""

    def __init__(self, location: Location) -> None:
        self._store = store_of(location)
        self._counts: dict[int, ShardCounts] = {}
        self._seen: dict[int, tuple[Claim, float]] = {}  # claims of object stores, and since when each stands still

    def read(self) -> EncodeStatus:
        """Read the state as it is now; raises TokensError where the folder is no token folder."""
        store = self._store
        info = read_info(store)
        claims, failures = read_claims(store), read_failures(store)
        present = {unit for unit in find_shards(store)[0] if unit < info.all_units}  # after claims: a held unit may end
        dataset_id, damaged, problem = self._count(info, present)
        held = [claim for claim in claims if _is_missing(claim.unit, info, present) and self._is_held(claim)]
        units_held = {claim.unit for claim in held}
        failed = [one for one in failures if _is_missing(one.unit, info, present) and one.unit not in units_held]
        counts = [self._counts[unit] for unit in present if unit in self._counts]
        skips = sum((Counter(each.skips) for each in counts), Counter[str]())
        missing = info.all_units - len(present)
        rate = _rate(store, held)
        return EncodeStatus(
            path=str(store),
            complete=dataset_id is not None,
            dataset_id=dataset_id,
            units=info.all_units,
            units_done=len(present),
            units_missing=missing,
            units_held=len(units_held),
            units_failed=len(failed),
            units_waiting=missing - len(units_held) - len(failed),
            images=sum(each.images for each in counts),
            skipped=skips.total(),
            skips=dict(skips.most_common()),
            held=tuple(held),
            failed=tuple(failed),
            damaged=tuple(damaged),
            manifest_problem=problem,
            images_per_second=rate,
            seconds_left=_seconds_left(info, present, self._counts, rate),
        )

    def _count(self, info: TokensInfo, present: set[int]) -> tuple[str | None, list[int], str | None]:
        """Count shards that are new; return the name of a complete set, and what is damaged: units, the manifest."""
        manifest = problem = None
        try:
            manifest = read_manifest(self._store)
        except TokensError as error:
            problem = str(error)
        for entry in manifest.entries if manifest else ():
            if not entry.skipped and entry.unit in present:
                self._counts[entry.unit] = ShardCounts(entry.images)
        new = sorted(present - self._counts.keys())
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(self._counts_of, new)
            self._counts |= {unit: counts for unit, counts in zip(new, found, strict=True) if counts is not None}
        whole = manifest is not None and len(manifest.entries) == info.all_units == len(present)
        return manifest.dataset_id if manifest and whole else None, sorted(present - self._counts.keys()), problem

    def _is_held(self, claim: Claim) -> bool:
        """Return whether a living process holds a claim; on an object store it renews it, which two looks show."""
        if claim.held is not None:
            return claim.held
        known, since = self._seen.get(claim.unit, (None, 0.0))
        if known != claim:
            self._seen[claim.unit] = claim, time.monotonic()
            return True
        return time.monotonic() - since < (claim.lease or LEASE_SECONDS)

    def _counts_of(self, unit: int) -> ShardCounts | None:
        try:
            return read_shard_counts(self._store.file(shard_path(unit)))
        except TokensError:
            return None


def _is_missing(unit: int, info: TokensInfo, present: set[int]) -> bool:
    return unit < info.all_units and unit not in present


def _rate(store: Store, held: Sequence[Claim]) -> float | None:
    """Add up the images a second of the processes that hold units, from the last lines of their journals."""
    if not held:
        return None
    names = [name for name in store.names(JOURNAL) if name.endswith(".jsonl")]
    journals = {process: _journal(store, names, process) for process in {claim.process for claim in held}}
    rates = []
    for process, host, pid in {(claim.process, claim.host, claim.pid) for claim in held}:
        lines = [line for line in journals[process] if _is_of(line, host, pid)][-_RECENT:]
        images = sum(line.get("images", 0) + line.get("skipped", 0) for line in lines)
        seconds = sum(line.get("seconds", 0.0) for line in lines)
        if images and seconds > 0:
            rates.append(images / seconds)
    return sum(rates) if rates else None


def _journal(store: Store, names: Sequence[str], process: str) -> list[dict[str, Any]]:
    """Read the journals of a share, of which an object store has several; damaged ones say nothing."""
    number, _, count = process.partition(" of ")
    lines: list[dict[str, Any]] = []
    with suppress(ValueError, ConfigError):  # a damaged claim names no process
        stem = f"{JOURNAL}/{Share(int(number), int(count)).name()}"
        for name in names:
            if name.startswith((f"{stem}.", f"{stem}-")):
                with suppress(OSError, TokensError, ValueError):
                    found = map(json.loads, store.file(name).read_bytes().splitlines())
                    lines += [line for line in found if isinstance(line, dict)]
    return lines


def _is_of(line: dict[str, Any], host: str, pid: int) -> bool:
    return (line.get("host", host), line.get("pid", pid)) == (host, pid)  # earlier versions record neither


def _seconds_left(
    info: TokensInfo, present: set[int], counts: Mapping[int, ShardCounts], rate: float | None
) -> float | None:
    """Estimate the time for the inputs of missing units; those of a container are the mean of committed containers."""
    if rate is None:
        return None
    parts: list[TokensInfo | Extension] = [info, *info.extensions]
    known = containers = 0
    done: list[ShardCounts] = []  # of containers
    for part in parts:
        first_container = part.first_unit + part.units - part.tars
        for unit in range(part.first_unit, first_container):
            if unit not in present:
                known += min(info.unit_size, part.images - (unit - part.first_unit) * info.unit_size)
        units = range(first_container, part.first_unit + part.units)
        containers += sum(unit not in present for unit in units)
        done += [counts[unit] for unit in units if unit in counts]
    if containers and not done:
        return None
    mean = sum(each.inputs for each in done) / len(done) if done else 0.0
    return (known + containers * mean) / rate
