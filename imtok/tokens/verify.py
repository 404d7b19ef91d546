"""The check of a token folder: every hash, every shard's list of its inputs, and every gap by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from imtok.errors import ImtokError, TokensError
from imtok.tokens.dataset import check_shard
from imtok.tokens.folder import (
    TOKENIZER,
    Manifest,
    ManifestEntry,
    TokensInfo,
    find_shards,
    read_info,
    read_manifest,
    shard_path,
)
from imtok.tokens.plan import PlanEntry, plan_hash, plan_path, read_plans
from imtok.tokens.shard import Shard, read_shard
from imtok.tokens.store import Location, StoredFile, store_of


@dataclass(frozen=True)
class Verification:
    """The result of the check of a token folder."""

    units: int  # planned
    images: int
    skipped: int
    dataset_id: str | None  # None without a manifest
    problems: list[str] = field(default_factory=list)  # one line each, naming unit and input or file

    @property
    def ok(self) -> bool:
        """The folder is complete and undamaged."""
        return not self.problems


@dataclass
class _Tally:
    images: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)


def verify_tokens(folder: Location, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check every unit of a token folder; `progress` receives units done and units in all.

    Raises TokensError where imtok.json, the plan or the manifest cannot be read at all.
    """
    info = read_info(folder)
    manifest = read_manifest(folder)
    present, foreign = find_shards(folder)
    tally = _Tally(problems=[*_folder_problems(folder, info, manifest), *_tokenizer_problems(folder, info)])
    tally.problems += [f"{name}: a file that nobody planned" for name in foreign]
    tally.problems += [
        f"{shard_path(unit)}: a unit that nobody planned" for unit in sorted(present) if unit >= info.all_units
    ]
    for unit, entries in groupby(read_plans(folder, len(info.extensions)), lambda entry: entry.unit):
        entry = manifest.entries[unit] if manifest and unit < len(manifest.entries) else None
        _check_unit(folder, info, list(entries), entry, tally)
        if progress:
            progress(unit + 1, info.all_units)
    dataset_id = manifest.dataset_id if manifest else None
    return Verification(info.all_units, tally.images, tally.skipped, dataset_id, tally.problems)


def _folder_problems(folder: Location, info: TokensInfo, manifest: Manifest | None) -> list[str]:
    problems = []
    for number, expected in enumerate([info.plan, *(extension.entries for extension in info.extensions)]):
        found = plan_hash(folder, number)
        if found is not None and found != expected:
            where = "its first line" if number else "imtok.json"
            problems.append(f"{plan_path(number)}: its hash is {found[:12]}…, {where} says {expected[:12]}…")
    if manifest is None:
        problems.append("MANIFEST.jsonl is missing: the set is not finished; run the same `imtok encode` again")
    elif len(manifest.entries) != info.all_units:
        problems.append(f"MANIFEST.jsonl: {len(manifest.entries)} units, {info.all_units} are planned")
    return problems


def _tokenizer_problems(folder: Location, info: TokensInfo) -> list[str]:
    from imtok.tokens.tokenizer_copy import load_copy  # torch loads here; readers of tokens do without it

    try:
        found = load_copy(folder).fingerprint
    except ImtokError as error:
        return [str(error)]
    if found != info.fingerprint:
        return [f"{TOKENIZER}: its fingerprint is {found[:12]}…, imtok.json says {info.fingerprint[:12]}…"]
    return []


def _check_unit(
    folder: Location, info: TokensInfo, inputs: list[PlanEntry], entry: ManifestEntry | None, tally: _Tally
) -> None:
    unit = inputs[0].unit
    place = f"unit {unit} ({_span(inputs)})"
    path = store_of(folder).file(shard_path(unit))
    if not path.exists():
        tally.problems.append(f"{place} is missing; run the same `imtok encode` again")
        return
    try:
        shard = read_shard(path)
        check_shard(shard, unit, info, path)
    except TokensError as error:
        tally.problems.append(f"{place}: {error}")
        return
    tally.images += len(shard)
    tally.skipped += shard.skipped
    tally.problems += [f"{place}: {path.name}: {problem}" for problem in _shard_problems(shard, inputs)]
    if entry is not None:
        tally.problems += [f"{place}: {path.name}: {problem}" for problem in _manifest_problems(path, shard, entry)]


def _span(inputs: list[PlanEntry]) -> str:
    if len(inputs) == 1:
        return inputs[0].name
    return f"{inputs[0].name} to {inputs[-1].name}, {len(inputs)} inputs"


def _manifest_problems(path: StoredFile, shard: Shard, entry: ManifestEntry) -> Iterator[str]:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != entry.sha256:
        yield f"its hash is {found[:12]}…, MANIFEST.jsonl says {entry.sha256[:12]}…; delete it and encode again"
    if (len(shard), shard.skipped) != (entry.images, entry.skipped):
        yield (
            f"{len(shard)} images and {shard.skipped} skipped, MANIFEST.jsonl says {entry.images} and {entry.skipped}"
        )


def _shard_problems(shard: Shard, inputs: list[PlanEntry]) -> Iterator[str]:
    from_tar = inputs[0].tar is not None
    if not from_tar and shard.header.inputs != len(inputs):
        yield f"it accounts for {shard.header.inputs} inputs, the plan has {len(inputs)}"
        return
    yield from _gaps(shard, inputs)
    if len(shard) and (largest := int(shard.all_codes.max())) >= shard.header.codebook_size:
        yield f"code {largest} is outside [0, {shard.header.codebook_size})"
    if len(_impossible_crops(shard)):
        yield f"a crop of {shard.keys[int(_impossible_crops(shard)[0])]} is not inside its picture"
    if from_tar and len(set(shard.keys)) != len(shard):
        yield "a key occurs twice"
    if not from_tar:
        yield from _wrong_keys(shard, inputs)


def _impossible_crops(shard: Shard) -> npt.NDArray[np.int64]:
    """Rows with a crop that is empty, reaches outside the picture, or is neither mirrored nor not."""
    if shard.crops is None:
        return np.empty(0, np.int64)
    crops = shard.crops.astype(np.int64)
    start, size, mirrored = crops[..., :2], crops[..., 2:4], crops[..., 4]
    wrong = (start < 0) | (size < 1) | (start + size > shard.original_size[:, None].astype(np.int64))
    return np.flatnonzero((wrong.any(-1) | (mirrored < 0) | (mirrored > 1)).any(-1))


def _gaps(shard: Shard, inputs: list[PlanEntry]) -> Iterator[str]:
    """Positions that are not accounted for exactly once, or stand out of order."""
    for name, index in (("index", shard.index), ("skip_index", shard.skip_index)):
        if (np.diff(index) <= 0).any():
            yield f"{name} is not in ascending order"
    positions = np.concatenate([shard.index, shard.skip_index])
    planned, from_tar = shard.header.inputs, inputs[0].tar is not None
    outside = positions[(positions < 0) | (positions >= planned)]
    if len(outside):
        yield f"position {int(outside[0])} is outside the unit's {planned} inputs"
        return
    found, times = np.unique(positions, return_counts=True)
    for position in found[times > 1]:
        yield f"{f'position {position}' if from_tar else inputs[position].name} is accounted for more than once"
    if from_tar and len(found) < planned:
        yield f"{planned - len(found)} of its {planned} images are not accounted for"
    if not from_tar:
        for position in np.setdiff1d(np.arange(planned), found):
            yield f"{inputs[position].name} is not accounted for"


def _wrong_keys(shard: Shard, inputs: list[PlanEntry]) -> Iterator[str]:
    for index, keys in ((shard.index, shard.keys), (shard.skip_index, shard.skip_keys)):
        for position, key in zip(index.tolist(), keys, strict=True):
            if 0 <= position < len(inputs) and key != inputs[position].key:
                yield f"position {position} holds {key}, the plan says {inputs[position].key}"
                return
