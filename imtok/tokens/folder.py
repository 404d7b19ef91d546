"""The files of a token folder around its shards.

    imtok.json              created once: what made the tokens, and their shape
    tokenizer/              a copy of the tokenizer, so that decoding needs nothing else
    plan/inputs-00000.jsonl frozen, ordered list of inputs, cut into units
    shards/000/00000000.safetensors   one committed unit each
    journal/                times and speeds; never the truth, and the only thing outside bit-identity
    MANIFEST.jsonl          written last: every unit with its hash; its own hash names the data set

No source paths and no times: folders made from the same inputs are equal byte for byte. Everything is made whole
and published by an exclusive link; who comes second compares, and adopts or refuses.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imtok.errors import TokensError
from imtok.tokens.shard import Shard

INFO, PLAN, MANIFEST = "imtok.json", "plan/inputs-00000.jsonl", "MANIFEST.jsonl"
TOKENIZER, SHARDS, JOURNAL = "tokenizer", "shards", "journal"

_FORMAT, _VERSIONS = "imtok-tokens", (1, 2)
_SINCE_2 = {"rules", "labels", "max_pixels", "salvage_images"}  # fields of imtok.json
_HINT = "delete the file and run the same `imtok encode` again"
_INFO_HINT = "copy the folder again, or encode into another"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_R = TypeVar("_R", bound=_Record)


class Numerics(_Record):
    """Facts that decide the last bits of the encoder's output, and sometimes a code."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)  # per operation
    versions: dict[str, str]  # of imtok, torch and pillow


class TokensInfo(_Record):
    """The content of imtok.json."""

    format: Literal["imtok-tokens"] = "imtok-tokens"
    version: Literal[1, 2] = 2  # 1 has none of `rules`, `labels`, `max_pixels`, `salvage_images`
    rules: int = Field(1, ge=1)  # by which sources became images, see imtok.data.reading
    fingerprint: str  # of the tokenizer
    codebook_size: int = Field(ge=1)
    num_codebooks: int = Field(ge=1)
    index_order: str | None  # the order in which digits or signs make a code; None where a code is a row number
    grid: tuple[int, int]  # codes down, codes across
    downsample: int = Field(ge=1)
    size: int = Field(ge=1)  # side of the square that was encoded, pixels
    fit: Literal["crop", "pad"]
    numerics: Numerics
    units: int = Field(ge=0)
    unit_size: int = Field(ge=1)  # images in a unit of the folder list; a tar is one unit whatever it holds
    images: int = Field(ge=0)  # in the folder list; those in tars are not counted before they are read
    tars: int = Field(ge=0)
    labels: Literal["folders", "cls", "json", "none"] | None = None  # where labels come from
    class_names: tuple[str, ...]  # labels are indices into it; empty where classes have no names
    max_pixels: int | None = Field(None, ge=1)  # larger pictures are skipped
    salvage_images: bool = False  # truncated pictures were taken as far as they could be read
    plan: str  # SHA-256 of the plan

    @property
    def folder_units(self) -> int:
        """Units cut from the folder list; those of tars follow."""
        return self.units - self.tars

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of an image's codes: (h, w), or (h, w, Q) for Q > 1 codebooks."""
        return self.grid if self.num_codebooks == 1 else (*self.grid, self.num_codebooks)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        content = self.model_dump(mode="json", exclude=_SINCE_2 if self.version == 1 else None)
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


class PlanEntry(_Record):
    """A line of the plan: one image of the folder list, or one tar."""

    unit: int
    key: str | None = None
    tar: str | None = None
    bytes: int

    @property
    def name(self) -> str:
        """The input's name for a person."""
        return self.key if self.key is not None else f"{self.tar}.tar"


class ManifestEntry(_Record):
    """A line of the manifest: one unit as it lies on disk."""

    unit: int
    path: str
    bytes: int
    sha256: str
    images: int
    skipped: int
    first_key: str | None
    last_key: str | None


@dataclass(frozen=True)
class Manifest:
    """Every unit of a complete token folder."""

    entries: tuple[ManifestEntry, ...]
    dataset_id: str  # SHA-256 of the file: the name of the data set


def read_info(folder: Path) -> TokensInfo:
    """Read imtok.json; raises TokensError where there is none that this imtok reads."""
    path = folder / INFO
    try:
        data = path.read_bytes()
    except OSError as error:
        if not folder.exists():
            raise TokensError(f"{folder}: no such folder; give one written by `imtok encode`") from error
        raise TokensError(f"{folder}: not a token folder, it has no {INFO}; give one of `imtok encode`") from error
    _check_version(path, data)
    return _parse(TokensInfo, data, str(path), _INFO_HINT)


def read_plan(folder: Path) -> Iterator[PlanEntry]:
    """Read the inputs in order; raises TokensError where the list is missing or damaged."""
    path = folder / PLAN
    for number, line in _lines(path):
        yield _parse(PlanEntry, line, f"{path}: line {number}")


def plan_to_bytes(entries: Iterable[PlanEntry]) -> bytes:
    """Return the plan's bytes."""
    return b"".join(_line(entry) for entry in entries)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest, None where the folder is not finished; raises TokensError where it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    entries = tuple(_parse(ManifestEntry, line, f"{path}: line {number}") for number, line in _lines(path))
    for unit, entry in enumerate(entries):
        if entry.unit != unit or entry.path != shard_path(unit):
            raise TokensError(f"{path}: line {unit + 1} is about unit {entry.unit}, expected {unit}; delete the file")
    return Manifest(entries, hashlib.sha256(path.read_bytes()).hexdigest())


def manifest_entry(shard: Shard, data: bytes) -> ManifestEntry:
    """Return the manifest's line for a shard whose file holds `data`."""
    return ManifestEntry(
        unit=shard.header.unit,
        path=shard_path(shard.header.unit),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        images=len(shard),
        skipped=shard.skipped,
        first_key=shard.keys[0] if len(shard) else None,
        last_key=shard.keys[len(shard) - 1] if len(shard) else None,
    )


def manifest_to_bytes(entries: Sequence[ManifestEntry]) -> bytes:
    """Return the manifest's bytes."""
    return b"".join(_line(entry) for entry in entries)


def shard_path(unit: int) -> str:
    """Return the path of a unit's shard below the token folder."""
    return f"{SHARDS}/{unit // 1000:03d}/{unit:08d}.safetensors"


def find_shards(folder: Path) -> tuple[set[int], list[str]]:
    """Find the units that have a shard, and foreign files among the shards, both from names alone."""
    units: set[int] = set()
    foreign: list[str] = []
    for parent, _, names in os.walk(folder / SHARDS):
        below = Path(parent).relative_to(folder).as_posix()
        for name in names:
            stem = name.removesuffix(".safetensors")
            if stem.isascii() and stem.isdigit() and f"{below}/{name}" == shard_path(int(stem)):
                units.add(int(stem))
            elif not name.startswith("."):
                foreign.append(f"{below}/{name}")
    return units, sorted(foreign)


def _line(entry: _Record) -> bytes:
    content = entry.model_dump(exclude_none=isinstance(entry, PlanEntry))
    return (json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, from 1; only a line feed ends one, and the last must have it."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    raise TokensError(f"{path}: line {number} is cut short; {_HINT}")
                yield number, line
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror or error}); {_HINT}") from error


def _parse(record: type[_R], data: bytes, place: str, hint: str = _HINT) -> _R:
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "content"
        raise TokensError(f"{place}: damaged, {field}: {problem['msg']}; {hint}") from error


def _check_version(path: Path, data: bytes) -> None:
    """Raise TokensError for another version; damage calls for another hint."""
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TokensError(f"{path}: damaged, not JSON; {_INFO_HINT}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise TokensError(f'{path}: not a token folder of imtok; expected "format": "{_FORMAT}"')
    if content.get("version") not in _VERSIONS:
        raise TokensError(
            f"{path}: format version {content.get('version')}, this imtok reads {_VERSIONS[0]} to {_VERSIONS[-1]}; "
            "update imtok"
        )
