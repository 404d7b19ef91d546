"""The listing of one folder in the order of keys, some thousand entries at a time: a folder may hold millions of files.

A subfolder sorts as its name with a slash. So a walk through listings meets keys in the order of their bytes, and
nothing has to be sorted afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, overload

from imtok.sorted_runs import in_sorted_blocks

Kind = Literal["folder", "file", "other"]  # other: a link to nothing, a socket

_Row = tuple[str, int, str, Kind]  # name, of folders with a slash; size; address unless that is plain; kind

_PIECE = 4096  # files
_UNKNOWN = -1  # in place of a size


class Entry(NamedTuple):
    """One line of a folder's listing."""

    name: str  # the last part of the address
    address: str
    kind: Kind
    size: int | None = None  # bytes, where the listing has them for nothing


class Files(Sequence[Entry]):
    """Entries of one folder that follow each other in the order of keys, each made as it is used."""

    def __init__(self, beginning: str, rows: Sequence[_Row]) -> None:
        self._beginning, self._rows = beginning, rows

    def plain_names(self, beginning: str) -> list[str] | None:
        """Return the names, None unless all are files at `beginning` and their name."""
        if self._beginning != beginning or any(address or kind != "file" for _, _, address, kind in self._rows):
            return None
        return [row[0] for row in self._rows]

    @property
    def sizes(self) -> list[int | None]:
        """The bytes of each entry, None where the listing does not have them."""
        return [None if row[1] == _UNKNOWN else row[1] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return [self._entry(row) for row in self._rows[index]]
        return self._entry(self._rows[index])

    def _entry(self, row: _Row) -> Entry:
        name, size, address, kind = row
        name = name[:-1] if kind == "folder" else name
        return Entry(name, address or self._beginning + name, kind, None if size == _UNKNOWN else size)


class Listing:
    """The entries of one folder, which can be met once: `Files`, and each subfolder as an `Entry`.

    `names` are those of the watched ones that are there.
    """

    def __init__(self, folder: str, entries: Iterable[Entry], watched: Collection[str] = ()) -> None:
        self._beginning = folder if folder.endswith("/") else f"{folder}/"
        self._watched, self.names = watched, set[str]()
        self._blocks = in_sorted_blocks(self._rows(entries))

    def __iter__(self) -> Iterator[Files | Entry]:
        for rows in self._blocks:
            start = 0
            for index in [index for index, row in enumerate(rows) if row[3] == "folder"]:
                yield from self._files(rows, start, index)
                yield Files(self._beginning, rows)[index]
                start = index + 1
            yield from self._files(rows, start, len(rows))

    def _rows(self, entries: Iterable[Entry]) -> Iterator[_Row]:
        beginning, watched = self._beginning, self._watched
        for name, address, kind, size in entries:
            if name in watched:
                self.names.add(name)
            yield (
                f"{name}/" if kind == "folder" else name,
                _UNKNOWN if size is None else size,
                "" if address == beginning + name else address,
                kind,
            )

    def _files(self, rows: list[_Row], start: int, stop: int) -> Iterator[Files]:
        """Yield files some thousand at a time, so that what is made of them takes little memory."""
        for first in range(start, stop, _PIECE):
            yield Files(self._beginning, rows[first : min(first + _PIECE, stop)])
