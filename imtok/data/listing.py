"""The listing of one folder, packed: a folder may hold millions of files.

Entries lie in the byte order of the keys below the folder: a subfolder sorts as its name with a slash. So a walk
through listings meets keys in their order, and nothing has to be sorted afterwards.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, overload

Kind = Literal["folder", "file", "other"]  # other: a link to nothing, a socket

_UNKNOWN = -1  # in place of a size


class Entry(NamedTuple):
    """One line of a folder's listing."""

    name: str  # the last part of the address
    address: str
    kind: Kind
    size: int | None = None  # bytes, where the listing has them for nothing


class Listing(Sequence[Entry]):
    """Entries of one folder in the order of the keys below it, each made as it is used."""

    def __init__(self, beginning: str, entries: Iterable[tuple[str, Kind, str | None, int | None]]) -> None:
        """Pack names with their kinds, addresses and sizes; without an address it is `beginning` and the name."""
        self._beginning = beginning
        self._names: list[str] = []  # of folders with a slash
        self._others: set[str] = set()
        self._addresses: dict[str, str] = {}
        sizes = array("q")
        for name, kind, address, size in entries:
            self._names.append(f"{name}/" if kind == "folder" else name)
            if kind == "other":
                self._others.add(name)
            if address is not None and address != beginning + name:
                self._addresses[self._names[-1]] = address
            if size is not None and not sizes:
                sizes.extend([_UNKNOWN] * (len(self._names) - 1))
            if size is not None or sizes:
                sizes.append(_UNKNOWN if size is None else size)
        self._sizes = self._sort(sizes)

    @classmethod
    def of(cls, folder: str, entries: Sequence[Entry]) -> Listing:
        """Return what a storage lists in a folder as a listing."""
        if isinstance(entries, Listing):
            return entries
        beginning = folder if folder.endswith("/") else f"{folder}/"
        return cls(beginning, ((entry.name, entry.kind, entry.address, entry.size) for entry in entries))

    def holds(self, name: str) -> bool:
        """Return whether an entry has this name."""
        return any(self._names[self._place(one) : self._place(one) + 1] == [one] for one in (name, f"{name}/"))

    def folders(self) -> list[int]:
        """Return the positions of folders."""
        return [index for index, name in enumerate(self._names) if name.endswith("/")]

    def plain_files(self, beginning: str, start: int, stop: int) -> list[str] | None:
        """Return the names of entries that are no folders, None unless all are files at `beginning` and their name."""
        if self._others or self._addresses or self._beginning != beginning:
            return None
        return self._names[start:stop]

    def sizes(self, start: int, stop: int) -> list[int | None]:
        """Return the bytes of entries, None for those whose size the listing does not have."""
        if not self._sizes:
            return [None] * (stop - start)
        return [None if size == _UNKNOWN else size for size in self._sizes[start:stop]]

    def _place(self, name: str) -> int:
        return bisect_left(self._names, name)

    def _sort(self, sizes: array[int]) -> array[int]:
        """Sort the names; return their sizes in this order."""
        if not sizes:
            self._names.sort()
        elif any(one > other for one, other in pairwise(self._names)):
            order = sorted(range(len(sizes)), key=self._names.__getitem__)
            self._names = [self._names[index] for index in order]
            return array("q", (sizes[index] for index in order))
        return sizes

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return [self._entry(one) for one in range(len(self))[index]]
        return self._entry(range(len(self))[index])

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, range(len(self)))

    def _entry(self, index: int) -> Entry:
        slashed = self._names[index]
        name = slashed.removesuffix("/")
        address = self._addresses.get(slashed) if self._addresses else None
        kind: Kind = "folder" if name != slashed else "other" if name in self._others else "file"
        return Entry(name, address or self._beginning + name, kind, self.sizes(index, index + 1)[0])
