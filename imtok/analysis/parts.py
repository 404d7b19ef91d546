"""Parts of a count on disk, for sets that several machines share: one safetensors file for each part.

Its one metadata key, `imtok`, names the token set and says which units were counted.
"""

# Axes: K codes, Q codebooks, m different pairs, S images kept.

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import Tally
from imtok.errors import TokensError, disk_errors
from imtok.files import write_atomically
from imtok.quantizer_config import Record
from imtok.tokens import TokenDataset

_DIRECTIONS = ("right", "below")


class PartHeader(Record):
    """What a part says of itself."""

    format: Literal["imtok-stats-part"] = "imtok-stats-part"
    version: Literal[1] = 1
    tokens: str  # which token set: a hash of what it says of itself
    index: int
    of: int
    images: int


def places_of(tokens: TokenDataset, index: int, of: int) -> range:
    """Which places of `tokens.units` part `index` of `of` counts, as `imtok encode --shard` shares them."""
    return range(index, len(tokens.units), of)


def write_part(path: Path, tally: Tally, tokens: TokenDataset, index: int, of: int) -> None:
    """Write what was counted of part `index` of `of`, whole or not at all."""
    header = PartHeader(tokens=_identity(tokens), index=index, of=of, images=tally.images)
    data = safetensors.numpy.save(_arrays(tally), metadata={"imtok": header.model_dump_json()})
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)


def merge_parts(paths: Sequence[Path], tokens: TokenDataset) -> Tally:
    """All parts of a set as one tally.

    Raises TokensError where a file is no part, is of another set, or a part is missing or given twice.
    """
    whole = Tally(tokens.grid, tokens.codebook_size, tokens.num_codebooks, Sampling.of(tokens))
    identity, found, of = _identity(tokens), dict[int, Path](), 0
    for path in paths:
        header, arrays = _read(path)
        if header.tokens != identity:
            raise TokensError(f"{path}: counted from other tokens than {tokens.folder}; give its own parts")
        if of and header.of != of:
            raise TokensError(f"{path}: part of {header.of}, where {paths[0]} is one of {of}; give parts of one count")
        if header.index in found:
            raise TokensError(f"{path}: part {header.index} is also in {found[header.index]}; give each part once")
        found[header.index], of = path, header.of
        whole.merge(_tally(path, arrays, header, whole))
    missing = [index for index in range(of) if index not in found]
    if missing:
        raise TokensError(
            f"{tokens.folder}: part {missing[0]} of {of} is missing ({len(missing)} in all); make it with "
            f"`imtok stats {tokens.folder} --shard {missing[0]}/{of} -o PART`"
        )
    return whole


def _identity(tokens: TokenDataset) -> str:
    """Two sets of the same plan differ in their units only where one is incomplete."""
    units = np.array(tokens.units, np.int64).tobytes()
    return hashlib.sha256(tokens.info.to_bytes() + units + str(len(tokens)).encode()).hexdigest()


def _arrays(tally: Tally) -> dict[str, npt.NDArray[Any]]:
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


def _read(path: Path) -> tuple[PartHeader, dict[str, npt.NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = PartHeader.model_validate_json((file.metadata() or {}).get("imtok", ""))
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
    except (SafetensorError, ValidationError) as error:
        raise TokensError(
            f"{path}: no part of a count; expected a file of `imtok stats --shard I/N -o PART`"
        ) from error
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror or error}); make the part again") from error


def _tally(path: Path, arrays: dict[str, npt.NDArray[Any]], header: PartHeader, like: Tally) -> Tally:
    tally = Tally(like.grid, like.codebook_size, like.num_codebooks, like.sampling)
    try:
        _check_shape(arrays["counts"], tally.counts)
        _check_shape(arrays["first"], tally.first)
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


def _check_shape(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{found.dtype}{list(found.shape)} where {expected.dtype}{list(expected.shape)} is expected")
