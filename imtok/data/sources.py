"""SOURCE arguments: which images and containers a list of folders, tars, URLs and patterns names.

A key is an image's POSIX path relative to its folder, with its suffix. With several folders each key begins with
its folder's name. Lists are sorted by the bytes of their keys, so every machine sees the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from imtok.data.address_lists import AddressList, add_list
from imtok.data.addresses import is_remote, redacted
from imtok.data.archives.parquet import require_pyarrow
from imtok.data.archives.readers import CONTAINERS as CONTAINERS
from imtok.data.container_names import name_containers, refuse_links_to_one, true_addresses
from imtok.data.containers import UNKNOWN_SIZE, Container, ImageFile, LostImage, as_text, nothing_to_close, unreadable
from imtok.data.expansion import expand, is_folder
from imtok.data.file_list import GrowingFileList
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.remote_files import RemoteFiles, storage_for
from imtok.data.scanning import Found, scan_folder, single_file
from imtok.errors import SourceError


@dataclass(frozen=True)
class ContainerFile:
    """A container among the sources; `name` is unique among the containers of a job."""

    name: str
    address: str = field(repr=False)  # may hold a signature
    size: int  # bytes, or UNKNOWN_SIZE
    reading: Reading = DEFAULT_READING
    kind: str = ".tar"  # the suffix that chooses its reader
    remote: RemoteFiles | None = field(default=None, compare=False, repr=False)  # fetches it from another machine

    @property
    def shown(self) -> str:
        """Its address without what may not be shown."""
        return redacted(self.address)

    def open(self) -> Container:
        """Read what it holds; raises SourceError where it cannot be read or has changed since it was listed."""
        if self.remote is None:
            return self._opened(self.address)
        self.remote.begin(self.address, self.size)
        try:
            return replace(self._opened_copy(self.remote), close=self._closed())
        except BaseException:
            self.remote.release(self.address)
            raise

    def fetch_ahead(self, *, ahead: bool) -> Callable[[], None] | None:
        """Begin to fetch it; return what lets go of the copy, None where `ahead` finds no room for it yet."""
        if self.remote is None:
            return nothing_to_close
        return self._closed() if self.remote.begin(self.address, self.size, ahead=ahead) else None

    def ready(self) -> bool:
        """Return, after a moment, whether `open` would not wait for what `fetch_ahead` has begun."""
        return self.remote is None or self.remote.ready(self.address)

    def _opened_copy(self, remote: RemoteFiles) -> Container:
        """Read a copy; where it is damaged, a second one says whether the file itself is."""
        path = str(remote.path(self.address))
        with suppress(SourceError):
            container = self._opened(path)
            if container.problem is None:
                return container
        return self._opened(str(remote.fetch_again(self.address)))

    def _closed(self) -> Callable[[], None]:
        remote, address, left = self.remote, self.address, [True]

        def close() -> None:
            if left and left.pop() and remote is not None:
                remote.release(address)

        return close

    def _opened(self, path: str) -> Container:
        try:
            container = CONTAINERS[self.kind](path, self.reading)
        except OSError as error:
            raise unreadable(self.address, error) from error
        except SourceError as error:
            raise SourceError(str(error).replace(path, self.shown)) from None
        if container.size != self.size != UNKNOWN_SIZE:
            raise SourceError(
                f"{self.shown}: {container.size} bytes, {self.size} when it was listed; it changes meanwhile"
            )
        return container


@dataclass(frozen=True)
class Sources:
    """All that the SOURCE arguments name."""

    files: Sequence[ImageFile | LostImage]  # a FileList, so that millions take little memory
    containers: tuple[ContainerFile, ...]
    ignored: int  # files of other kinds; hidden files are left uncounted
    ignored_containers: int = 0  # containers beside images
    notes: tuple[str, ...] = ()  # what a person has to know about the sources
    roots: tuple[tuple[str, str], ...] = ()  # folders that were given, each after the beginning of its keys
    texts: Mapping[str, int] = field(default_factory=dict)  # .cls, .json and dataset.json among the ignored
    remote: RemoteFiles | None = field(default=None, compare=False, repr=False)  # reads what lies on other machines


def find_sources(
    arguments: Sequence[str | Path | AddressList],
    reading: Reading = DEFAULT_READING,
    *,
    known: Mapping[str, int] | None = None,
    remote: RemoteFiles | None = None,
) -> Sources:
    """Resolve folders, containers, single images, lists, and brace patterns such as `train-{000..099}.tar`.

    `known` are the names and bytes of containers that a job has recorded: they keep their names. Without `remote`
    URLs are refused. Raises SourceError, naming the argument, for what does not exist, holds no images, or has the
    name of another source.
    """
    named = expand(arguments, reading, remote)
    addresses = [one for one in named if isinstance(one, str)]
    prefixes = _prefixes([address for address in addresses if is_folder(address, remote)], reading)
    files = GrowingFileList()

    def look(one: str | AddressList) -> Found:
        if isinstance(one, AddressList):
            return add_list(one, reading, files, remote=remote is not None)
        if one in prefixes:
            return scan_folder(one, prefixes[one], reading, files, remote)
        return single_file(one, reading, files, remote)

    all_found = [look(one) for one in named]
    sorted_files = files.sorted()
    containers = _containers([pair for found in all_found for pair in found.containers], known or {}, reading, remote)
    ignored, ignored_containers = (sum(found.ignored for found in all_found), sum(found.beside for found in all_found))
    notes = tuple(note for found in all_found for note in found.notes)
    roots = tuple((as_text(prefix), folder) for folder, prefix in prefixes.items())
    texts = sum((found.texts for found in all_found), Counter[str]())
    used = any(found.urls for found in all_found) or any(
        is_remote(address) for address in (*addresses, *(file.address for file in containers))
    )
    used_remote = remote if used else None
    return Sources(sorted_files, containers, ignored, ignored_containers, notes, roots, texts, used_remote)


def _containers(
    found: Sequence[tuple[str, str]], known: Mapping[str, int], reading: Reading, remote: RemoteFiles | None
) -> tuple[ContainerFile, ...]:
    """Name containers, given by address and kind, and find their sizes."""
    if remote is not None:
        remote.look_at(address for address, _ in found if is_remote(address))
    sizes: dict[str, int] = {}
    for address, kind in found:
        if kind == ".parquet":
            require_pyarrow(redacted(address))
        sizes[redacted(address)] = storage_for(address, remote).size(address)
    names = name_containers([redacted(address) for address, _ in found], known, reading.rules, sizes)
    return tuple(
        ContainerFile(name, address, sizes[shown], reading, kind, remote if is_remote(address) else None)
        for (name, shown), (address, kind) in zip(names, found, strict=True)
    )


def _prefixes(folders: list[str], reading: Reading) -> dict[str, str]:
    """Return the beginning of each folder's keys: nothing for one folder, its name for one of several."""
    if len(folders) <= 1:
        return dict.fromkeys(folders, "")
    names: dict[str, str] = {}
    for folder, address in zip(folders, true_addresses(folders, reading.rules), strict=True):
        name = PurePath(address).name
        if name in names.values():
            times = sum(PurePath(one).name == name for one in true_addresses(folders, reading.rules))
            raise SourceError(f"{times} of the given folders are called {name}; their keys would collide, rename one")
        names[folder] = name
    refuse_links_to_one(folders, "folder")
    return {folder: f"{name}/" for folder, name in names.items()}
