"""Records of a token folder as lines of JSON, and the sentences for those that are damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from imtok.errors import TokensError
from imtok.tokens.store import StoredFile

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_HINT = "delete the file and run the same `imtok encode` again"


class JsonRecord(BaseModel):
    """A record that cannot be changed and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_R = TypeVar("_R", bound=JsonRecord)


def to_line(record: JsonRecord, *, exclude_none: bool = False) -> bytes:
    """Return the line of a record."""
    content = record.model_dump(mode="json", exclude_none=exclude_none)
    return (_ENCODER.encode(content) + "\n").encode()


def read_lines(path: StoredFile) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers, from 1; only a line feed ends one, and the last must have it.

    Raises TokensError where the file is missing, cannot be read or is cut short.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    raise TokensError(f"{path}: line {number} is cut short; {_HINT}")
                yield number, line
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror or error}); {_HINT}") from error


def parse(record: type[_R], data: bytes, place: str, hint: str = _HINT) -> _R:
    """Return the record that `data` holds; raises TokensError, which begins with `place` and ends with `hint`."""
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "content"
        raise TokensError(f"{place}: damaged, {field}: {problem['msg']}; {hint}") from error
