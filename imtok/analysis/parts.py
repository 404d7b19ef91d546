"""Parts of a count on disk, for sets that several machines share: one safetensors file for each part.

Its one metadata key, `imtok`, names the token set, what was looked at of it, and which units were counted; a hash over
that and all arrays tells a part that was changed since.
"""

# Axes: K codes, Q codebooks, R runs of 256 images, m different pairs, S images kept, G grids hashed.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import Tally
from imtok.errors import ConfigError, TokensError, disk_errors
from imtok.files import write_atomically
from imtok.records import Record
from imtok.tokens import TokenDataset

_FORMAT: Final = "imtok-stats-part"
_VERSION: Final = (
    2  # of the file and of how it is counted: goes up wherever parts of before would add up to something else
)
_DIRECTIONS = ("right", "below")

Arrays = dict[str, npt.NDArray[Any]]


class PartHeader(Record):
    """What a part says of itself."""

    format: Literal["imtok-stats-part"] = _FORMAT
    version: Literal[2] = _VERSION
    tokens: str  # which token set: a hash of what it says of itself
    sampling: str  # what was looked at of it: `Sampling.digest`
    index: int = Field(ge=0)
    of: int = Field(ge=1)
    images: int = Field(ge=0)
    sha256: str = ""  # over the other fields and the arrays

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"part {self.index} of {self.of}")
        return self

    def digest(self, arrays: Arrays) -> str:
        """What `sha256` has to be, beside these arrays."""
        digest = hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode())
        for name, array in sorted(arrays.items()):
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(array.data)
        return digest.hexdigest()


def places_of(tokens: TokenDataset, index: int, of: int) -> range:
    """Which places of `tokens.units` part `index` of `of` counts, as `imtok encode --shard` shares them.

    Raises ConfigError where there is no such part.
    """
    if not 0 <= index < of:
        raise ConfigError(f"part {index} of {of}: expected 0 <= index < of, for instance part 0 of 8")
    return range(index, len(tokens.units), of)


def write_part(path: Path, tally: Tally, tokens: TokenDataset, index: int, of: int) -> None:
    """Write what was counted of part `index` of `of`, whole or not at all."""
    assert tally.sampling is not None  # parts are of counts with all figures
    arrays = _arrays(tally)
    header = PartHeader(
        tokens=_identity(tokens), sampling=tally.sampling.digest, index=index, of=of, images=tally.images
    )
    header = header.model_copy(update={"sha256": header.digest(arrays)})
    data = safetensors.numpy.save(arrays, metadata={"imtok": header.model_dump_json()})
    with disk_errors(path):
        write_atomically(path, data)


def merge_parts(
    paths: Sequence[Path], tokens: TokenDataset, progress: Callable[[int, int], None] | None = None
) -> Tally:
    """All parts of a set as one tally; `progress` takes (parts done, parts in all) and may raise to end it.

    Raises TokensError where a file is no part, is damaged, is of another set or counted by an imtok with other limits,
    or a part is missing or given twice.
    """
    sampling = Sampling.of(tokens)
    whole = Tally(tokens.grid, tokens.codebook_size, tokens.num_codebooks, sampling)
    identity, found, of = _identity(tokens), dict[int, Path](), 0
    for done, path in enumerate(paths):
        if progress:
            progress(done, len(paths))
        header, arrays = _read(path)
        if header.tokens != identity:
            raise TokensError(f"{path}: counted from other tokens than {tokens.folder}; give its own parts")
        if header.sampling != sampling.digest:
            raise TokensError(f"{path}: counted under other limits than this imtok's; make the part again")
        if of and header.of != of:
            raise TokensError(f"{path}: part of {header.of}, where {paths[0]} is one of {of}; give parts of one count")
        if header.index in found:
            raise TokensError(f"{path}: part {header.index} is also in {found[header.index]}; give each part once")
        found[header.index], of = path, header.of
        whole.merge(_tally(path, arrays, header, whole))
    if len(found) < of:
        missing = next(index for index in range(of) if index not in found)
        raise TokensError(
            f"{tokens.folder}: part {missing} of {of} is missing ({of - len(found)} in all); make it with "
            f"`imtok stats {tokens.folder} --shard {missing}/{of} -o PART`"
        )
    return whole


def _identity(tokens: TokenDataset) -> str:
    """Two sets of the same plan differ in their units only where one is incomplete."""
    units = np.array(tokens.units, np.int64).tobytes()
    return hashlib.sha256(tokens.info.to_bytes() + units + str(len(tokens)).encode()).hexdigest()


def _arrays(tally: Tally) -> Arrays:
    arrays = {
        "counts": tally.counts,
        "first": tally.first,
        "runs": np.concatenate([*tally.runs, np.empty(0, np.int64)]),
        "hashes": np.concatenate([*(each[0] for each in tally.hashes), np.empty(0, np.uint64)]),
        "hashed": np.concatenate([*(each[1] for each in tally.hashes), np.empty(0, np.int64)]),
    }
    if tally.kept:
        names = ("kept_numbers", "kept_codes", "kept_labels")
        arrays |= {
            name: np.concatenate(parts) for name, parts in zip(names, zip(*tally.kept, strict=True), strict=True)
        }
    for direction, tables in zip(_DIRECTIONS, tally.pairs, strict=True):
        for number, table in enumerate(tables):
            keys, counts = table.entries()
            arrays |= {f"{direction}.{number}.keys": keys, f"{direction}.{number}.counts": counts}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _read(path: Path) -> tuple[PartHeader, Arrays]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header(path, (file.metadata() or {}).get("imtok", ""))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise TokensError(
            f"{path}: no part of a count; expected a file of `imtok stats --shard I/N -o PART`"
        ) from error
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror or error}); make the part again") from error
    if header.sha256 != header.digest(arrays):
        raise TokensError(f"{path}: damaged, as its hash is another than it says; make the part again")
    return header, arrays


def _header(path: Path, text: str) -> PartHeader:
    """Raises ValueError where it is no part's, and TokensError where it is one of another version or damaged."""
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(text)
    if content.get("version") != _VERSION:
        raise TokensError(
            f"{path}: a part of version {content.get('version')}, this imtok adds up {_VERSION}; make the part again"
        )
    try:
        return PartHeader.model_validate(content)
    except ValidationError as error:
        raise TokensError(f"{path}: damaged, its header does not hold; make the part again") from error


def _tally(path: Path, arrays: Arrays, header: PartHeader, like: Tally) -> Tally:
    tally = Tally(like.grid, like.codebook_size, like.num_codebooks, like.sampling)
    try:
        _check(arrays, header, tally)
        tally.images, tally.counts, tally.first = header.images, arrays["counts"], arrays["first"]
        tally.runs, tally.hashes = [arrays["runs"]], [(arrays["hashes"], arrays["hashed"])]
        if "kept_numbers" in arrays:
            tally.kept = [(arrays["kept_numbers"], arrays["kept_codes"], arrays["kept_labels"])]
        for direction, tables in zip(_DIRECTIONS, tally.pairs, strict=True):
            for number, table in enumerate(tables):
                table.add_entries(arrays[f"{direction}.{number}.keys"], arrays[f"{direction}.{number}.counts"])
    except (KeyError, ValueError) as error:
        raise TokensError(f"{path}: damaged ({error}); make the part again") from error
    return tally


def _check(arrays: Arrays, header: PartHeader, empty: Tally) -> None:
    """Raise ValueError or KeyError where the arrays are not those of such a tally."""
    for name, expected in (("counts", empty.counts), ("first", empty.first)):
        if arrays[name].shape != expected.shape or arrays[name].dtype != expected.dtype:
            raise ValueError(f"{name}: {arrays[name].dtype}{list(arrays[name].shape)}")
    tokens = header.images * empty.grid[0] * empty.grid[1]
    if any(int(row.min()) < 0 or int(row.sum()) != tokens for row in arrays["counts"]):
        raise ValueError(f"counts that are not those of {header.images} images")
