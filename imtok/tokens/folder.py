"""The files of a token folder around its shards.

    imtok.json              created once: what made the tokens, and their shape
    tokenizer/              a copy of the tokenizer, so that decoding needs nothing else
    plan/inputs-00000.jsonl frozen, ordered list of inputs, cut into units; one more for each time that inputs came
    shards/000/00000000.safetensors   one committed unit each
    journal/                times, claims and failures; never the truth, and the only thing outside bit-identity
    MANIFEST.jsonl          written last: every unit with its hash; its own hash names the data set

No source paths and no times: folders made from the same inputs are equal byte for byte. Everything is made whole
and published once, by its `Store`; who comes second compares, and adopts or refuses.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from imtok.config import TokenizerConfig, load_tokenizer_config
from imtok.errors import ConfigError, TokensError
from imtok.tokens.json_lines import JsonRecord, parse, read_lines, to_line
from imtok.tokens.plan import Extension, Numerics, read_extensions
from imtok.tokens.shard import Shard
from imtok.tokens.store import Location, StoredFile, store_of

INFO, MANIFEST = "imtok.json", "MANIFEST.jsonl"
TOKENIZER, SHARDS, JOURNAL = "tokenizer", "shards", "journal"

_FORMAT, _VERSIONS = "imtok-tokens", (1, 2, 3)
# Fields of imtok.json.
_SINCE_2 = {"rules", "labels", "max_pixels", "salvage_images"}
_SINCE_3 = {"augment", "augment_seed", "num_crops"}
_INFO_HINT = "copy the folder again, or encode into another"


class TokensInfo(JsonRecord):
    """The content of imtok.json."""

    format: Literal["imtok-tokens"] = "imtok-tokens"
    # 1 has none of `rules`, `labels`, `max_pixels`, `salvage_images`; 3 is augmented, 1 and 2 are not.
    version: Literal[1, 2, 3] = 2
    rules: int = Field(1, ge=1)  # by which sources became images, see imtok.data.reading
    fingerprint: str  # of the tokenizer
    codebook_size: int = Field(ge=1)
    num_codebooks: int = Field(ge=1)
    index_order: str | None  # the order in which digits or signs make a code; None where a code is a row number
    grid: tuple[int, int]  # codes down, codes across
    downsample: int | None = Field(None, ge=1)  # pixels a code along one side; None where codes are a sequence (1, n)
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
    augment: str | None = None  # crops of an image, as `encode --augment` takes them; None: one
    augment_seed: int = Field(0, ge=0)  # of random crops
    num_crops: int = Field(1, ge=1)  # A
    plan: str  # SHA-256 of the plan
    extensions: tuple[Extension, ...] = Field((), exclude=True)  # inputs that came later, from the other plans

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if (self.version == 3) != (self.augment is not None):
            raise ValueError("version 3 holds augmented sets, and versions 1 and 2 hold none")
        return self

    # `units`, `images`, `tars` and `class_names` of this record are those it was begun with.

    @property
    def first_unit(self) -> int:
        """The number of the first unit of the first plan, as an `Extension` has it of its own."""
        return 0

    @property
    def parts(self) -> int:
        """Plans: the first and the extensions."""
        return 1 + len(self.extensions)

    @property
    def all_units(self) -> int:
        """Units of all plans."""
        return self.units + sum(extension.units for extension in self.extensions)

    @property
    def all_tars(self) -> int:
        """Containers of all plans."""
        return self.tars + sum(extension.tars for extension in self.extensions)

    def names_of_labels(self, unit: int) -> tuple[str, ...]:
        """Return the names of the labels of a unit, none where they are numbers without names."""
        # By rules 1 labels of containers are the numbers of .cls members, beside class folders too.
        return () if self.rules == 1 and self.is_container(unit) else self.all_class_names

    @property
    def all_class_names(self) -> tuple[str, ...]:
        """Names of the labels, of all plans."""
        return self.class_names + tuple(itertools.chain(*(extension.class_names for extension in self.extensions)))

    def is_container(self, unit: int) -> bool:
        """Return whether a unit is a container; the others are cut from a folder list."""
        first, units, tars = 0, self.units, self.tars
        for extension in self.extensions:
            if unit >= extension.first_unit:
                first, units, tars = extension.first_unit, extension.units, extension.tars
        return unit >= first + units - tars

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of an image's codes: (h, w), or (h, w, Q) for Q > 1 codebooks."""
        return self.grid if self.num_codebooks == 1 else (*self.grid, self.num_codebooks)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        unknown = {1: _SINCE_2 | _SINCE_3, 2: _SINCE_3, 3: set()}[self.version]
        content = self.model_dump(mode="json", exclude=unknown)
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


class ManifestEntry(JsonRecord):
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


def read_info(folder: Location) -> TokensInfo:
    """Read imtok.json; raises TokensError where there is none that this imtok reads."""
    store = store_of(folder)
    path = store.file(INFO)
    try:
        data = path.read_bytes()
    except OSError as error:
        if not store.exists():
            raise TokensError(f"{store}: no such folder; give one written by `imtok encode`") from error
        raise TokensError(f"{store}: not a token folder, it has no {INFO}; give one of `imtok encode`") from error
    _check_version(path, data)
    info = parse(TokensInfo, data, str(path), _INFO_HINT)
    return info.model_copy(update={"extensions": read_extensions(store, info.units)})


def read_tokenizer_config(folder: Location) -> TokenizerConfig | None:
    """Read the configuration of the tokenizer in a token folder, without its weights; None where none can be read."""
    path = store_of(folder).file(f"{TOKENIZER}/config.json")
    try:
        content = json.loads(path.read_bytes())
        values = {name: value for name, value in content.items() if name not in ("format", "version")}
        return load_tokenizer_config(values, str(path))
    except (OSError, ValueError, AttributeError, RecursionError, ConfigError):
        return None


def read_manifest(folder: Location) -> Manifest | None:
    """Read the manifest, None where the folder is not finished; raises TokensError where it is damaged."""
    path = store_of(folder).file(MANIFEST)
    if not path.exists():
        return None
    entries = tuple(parse(ManifestEntry, line, f"{path}: line {number}") for number, line in read_lines(path))
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
    return b"".join(to_line(entry) for entry in entries)


def shard_path(unit: int) -> str:
    """Return the path of a unit's shard below the token folder."""
    return f"{SHARDS}/{unit // 1000:03d}/{unit:08d}.safetensors"


def find_shards(folder: Location) -> tuple[set[int], list[str]]:
    """Find the units that have a shard, and foreign files among the shards, both from names alone."""
    units: set[int] = set()
    foreign: list[str] = []
    for name in store_of(folder).names(SHARDS):
        last = name.rpartition("/")[2]
        stem = last.removesuffix(".safetensors")
        if stem.isascii() and stem.isdigit() and name == shard_path(int(stem)):
            units.add(int(stem))
        elif not last.startswith("."):
            foreign.append(name)
    return units, sorted(foreign)


def _check_version(path: StoredFile, data: bytes) -> None:
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
