"""The number of images of a shard, of what it skipped, and its labels: no codes and no keys are read.

So thousands of shards are counted in a moment, on a disk or by one short request each to an object store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.packed_strings import PackedStrings
from imtok.tokens.store import StoredFile

if TYPE_CHECKING:
    from imtok.tokens.object_store import ObjectFile

_HEAD_BYTES = 2**14  # the header of a shard is shorter unless its tar was damaged at great length
_ROOM = 2**20  # of one read for two arrays
_HEADER_BYTES = 2**27  # no header of safetensors is longer


@dataclass(frozen=True)
class ShardCounts:
    """The images of a shard, and its skipped inputs by reason."""

    images: int
    skips: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """The images with the skipped inputs."""
        return self.images + sum(self.skips.values())


def read_shard_counts(file: StoredFile) -> ShardCounts:
    """Count the images and skips of a shard; raises TokensError where it is missing or damaged."""
    with _damage_named(file):
        header, start = _header(file)
        images, skipped = (int(header[name]["shape"][0]) for name in ("codes", "skip_index"))
        return ShardCounts(images, _reasons(file, header, start, skipped) if skipped else {})


def read_shard_labels(file: StoredFile) -> tuple[int, npt.NDArray[np.int64] | None]:
    """Return the number of images of a shard and their labels (N,), None where it has none, and read nothing else.

    Raises TokensError where it is missing or damaged.
    """
    with _damage_named(file):
        header, start = _header(file)
        images = int(header["codes"]["shape"][0])
        if "labels" not in header:
            return images, None
        first, last = header["labels"]["data_offsets"]
        labels = np.frombuffer(_read(file, start + first, last - first), "<i8")
        if len(labels) != images:
            raise ValueError("its labels do not fit its images")
        return images, labels


def _header(file: StoredFile) -> tuple[dict[str, Any], int]:
    """Return the header of a shard, and where its arrays begin."""
    head = _read(file, 0, _HEAD_BYTES)
    start = 8 + int.from_bytes(head[:8], "little")
    if len(head) < start <= _HEADER_BYTES:
        head = _read(file, 0, start)
    header: dict[str, Any] = json.loads(head[8:start])
    return header, start


@contextmanager
def _damage_named(file: StoredFile) -> Iterator[None]:
    """Turn what a damaged shard raises into a TokensError that names it."""
    try:
        yield
    except OSError as error:
        raise TokensError(
            f"{file}: cannot be read ({error.strerror or error}); run the same `imtok encode` again"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise TokensError(f"{file}: damaged; delete it and run the same `imtok encode` again") from error


def _reasons(file: StoredFile, header: Mapping[str, Any], start: int, skipped: int) -> Mapping[str, int]:
    places = [header[f"skip_reason_{name}"]["data_offsets"] for name in ("bytes", "offsets")]
    first, last = min(begin for begin, _ in places), max(end for _, end in places)
    if last - first > _ROOM:  # other arrays lie between them
        parts = [_read(file, start + begin, end - begin) for begin, end in places]
    else:
        data = _read(file, start + first, last - first)
        parts = [data[begin - first : end - first] for begin, end in places]
    strings = PackedStrings(np.frombuffer(parts[0], np.uint8), np.frombuffer(parts[1], np.int64))
    if len(strings) != skipped or strings.problem():
        raise ValueError("its reasons do not fit its skipped inputs")
    return Counter(strings)


def _read(file: StoredFile, start: int, size: int) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            opened.seek(start)
            return opened.read(size)
    return cast("ObjectFile", file).range(start, size)
