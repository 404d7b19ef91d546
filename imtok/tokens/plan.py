"""The frozen lists of inputs of a token folder: the first one, and one for each time that its inputs grew.

    plan/inputs-00000.jsonl  the inputs it was begun with; imtok.json holds what is to be known of them
    plan/inputs-00001.jsonl  inputs that came later; the first line is an `Extension`, so that one link publishes both

Units are numbered on from list to list, and nothing of an earlier list ever changes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from imtok.errors import TokensError
from imtok.tokens.json_lines import JsonRecord, parse, read_lines, to_line
from imtok.tokens.plan_lines import ImageRow, image_row
from imtok.tokens.store import Location, StoredFile, store_of

_HINT = "copy the folder again, or encode into another"
_WITH_SUFFIX = (".zip", ".parquet")  # names of other containers than tars end so


class Numerics(JsonRecord):
    """Facts that decide the last bits of the encoder's output, and sometimes a code."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)  # per operation
    versions: dict[str, str]  # of imtok, torch and pillow


class PlanEntry(JsonRecord):
    """A line of a plan: one image of the folder list, or one container."""

    unit: int
    key: str | None = None
    tar: str | None = None
    bytes: int

    @property
    def name(self) -> str:
        """The input's name for a person."""
        if self.key is not None:
            return self.key
        name = str(self.tar)
        return name if name.endswith(_WITH_SUFFIX) else f"{name}.tar"


class Extension(JsonRecord):
    """The first line of a plan of inputs that came later: what is to be known of its units."""

    format: Literal["imtok-extension"] = "imtok-extension"
    number: int = Field(ge=1)
    first_unit: int = Field(ge=0)
    units: int = Field(ge=1)
    images: int = Field(ge=0)  # in the folder list
    tars: int = Field(ge=0)
    class_names: tuple[str, ...]  # new ones; their numbers follow those of the lists before
    rules: int = Field(ge=1)
    numerics: Numerics
    entries: str  # SHA-256 of the lines that follow


def plan_path(number: int = 0) -> str:
    """Return the path of a list of inputs below the token folder."""
    return f"plan/inputs-{number:05d}.jsonl"


def read_plan(folder: Location, number: int = 0) -> Iterator[PlanEntry]:
    """Read a list of inputs in order; raises TokensError where it is missing or damaged."""
    path = store_of(folder).file(plan_path(number))
    for line_number, line in itertools.islice(read_lines(path), 1 if number else 0, None):
        yield _parsed(path, number, line_number, line)


def read_plan_rows(folder: Location, number: int = 0) -> Iterator[ImageRow | PlanEntry]:
    """Read a list of inputs as `read_plan` does, but without a record for each image whose key is plain text."""
    path = store_of(folder).file(plan_path(number))
    for line_number, line in itertools.islice(read_lines(path), 1 if number else 0, None):
        yield image_row(line) or _parsed(path, number, line_number, line)


def read_plans(folder: Location, extensions: int) -> Iterator[PlanEntry]:
    """Read the first list of inputs and as many later ones; raises TokensError as `read_plan` does."""
    for number in range(extensions + 1):
        yield from read_plan(folder, number)


def _parsed(path: StoredFile, number: int, line_number: int, line: bytes) -> PlanEntry:
    return parse(PlanEntry, line, f"{path}: line {line_number}", *([_HINT] if number else []))


def plan_to_bytes(entries: Iterable[PlanEntry]) -> bytes:
    """Return the bytes of the first list."""
    return b"".join(to_line(entry, exclude_none=True) for entry in entries)


def read_extensions(folder: Location, units: int) -> tuple[Extension, ...]:
    """Read the first lines of the lists that follow the first one of so many units; raises TokensError on damage."""
    found: list[Extension] = []
    for number in itertools.count(1):
        path = store_of(folder).file(plan_path(number))
        if not path.exists():
            return tuple(found)
        _, line = next(read_lines(path), (1, b""))
        extension = parse(Extension, line, f"{path}: line 1", _HINT)
        if (extension.number, extension.first_unit) != (number, units):
            raise TokensError(f"{path}: does not follow the list before it; copy the folder again")
        found.append(extension)
        units += extension.units
    raise AssertionError


def plan_hash(folder: Location, number: int = 0) -> str | None:
    """Hash the entries of a list as its record has them, None where there is no file."""
    path = store_of(folder).file(plan_path(number))
    if not path.exists():
        return None
    with path.open("rb") as file:
        if number:
            file.readline()
        return hashlib.file_digest(file, "sha256").hexdigest()
