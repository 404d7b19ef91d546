"""One line of a folder's listing, for storages of every kind."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["folder", "file", "other"]  # other: a link to nothing, a socket


class Entry(NamedTuple):
    """One line of a folder's listing."""

    name: str  # the last part of the address
    address: str
    kind: Kind
    size: int | None = None  # bytes, where the listing has them for nothing
