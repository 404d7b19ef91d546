"""SOURCE arguments: which images and containers a list of folders, tars and patterns names.

A key is an image's POSIX path relative to its folder, with its suffix. With several folders each key begins with
its folder's name. Lists are sorted by the bytes of their keys, so every machine sees the same order.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from imtok.data.containers import Container, ImageFile, LostImage, as_text, unreadable
from imtok.data.images import SUFFIXES
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.storage import Entry, Storage, storage_of
from imtok.data.tars import open_tar
from imtok.errors import SourceError

# Readers of containers by the suffix of the file. A new kind of container is a module and a line here.
CONTAINERS: dict[str, Callable[[str], Container]] = {".tar": open_tar}


@dataclass(frozen=True)
class ContainerFile:
    """A container among the sources; `name` is unique among the containers of a job."""

    name: str
    address: str
    size: int  # bytes
    reading: Reading = DEFAULT_READING

    def open(self) -> Container:
        """Read what it holds; raises SourceError where it cannot be read or has changed since it was listed."""
        try:
            container = CONTAINERS[_suffix(self.address)](self.address)
        except OSError as error:
            raise unreadable(self.address, error) from error
        if container.size != self.size:
            raise SourceError(
                f"{self.address}: {container.size} bytes, {self.size} when it was listed; it changes meanwhile"
            )
        return container


@dataclass(frozen=True)
class Sources:
    """All that the SOURCE arguments name."""

    files: tuple[ImageFile | LostImage, ...]
    containers: tuple[ContainerFile, ...]
    ignored: int  # files with other suffixes and links to nothing; hidden files are left uncounted
    ignored_containers: int = 0  # containers beside images
    notes: tuple[str, ...] = ()  # what a person has to know about the sources
    roots: tuple[tuple[str, str], ...] = ()  # folders that were given, each after the beginning of its keys


def find_sources(arguments: Sequence[str | Path], reading: Reading = DEFAULT_READING) -> Sources:
    """Resolve folders, containers, single images and brace patterns such as `train-{000..099}.tar`.

    Raises SourceError, naming the argument, for what does not exist, holds no images, or cannot be told apart.
    """
    addresses = [address for argument in arguments for address in _expand(str(argument))]
    folders = [address for address in addresses if _is_folder(address)]
    prefixes = _prefixes(folders)
    files: list[ImageFile | LostImage] = []
    containers: list[str] = []
    ignored = ignored_containers = 0
    for address in addresses:
        if address in prefixes:
            found = _scan(address, prefixes[address])
            ignored += found.ignored
            files += found.files
            # A folder of shards is a list of shards; beside images, tars are just other files.
            if found.files:
                ignored_containers += len(found.containers)
            else:
                containers += found.containers
        elif _suffix(address) in SUFFIXES:
            files.append(ImageFile(as_text(PurePath(address).name), address, storage_of(address).size(address)))
        elif _suffix(address) in CONTAINERS:
            containers.append(address)
        else:
            raise SourceError(f"{address}: neither a folder, nor an image, nor a .tar; give one of these")
    files.sort(key=lambda file: file.key.encode())
    _refuse_twins(files)
    roots = tuple((as_text(prefix), folder) for folder, prefix in prefixes.items())
    named = tuple(_name_containers(containers, reading))
    return Sources(tuple(files), named, ignored, ignored_containers, roots=roots)


@dataclass
class _Found:
    files: list[ImageFile | LostImage] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    ignored: int = 0


def _expand(argument: str) -> list[str]:
    """Return the addresses that an argument names, each of an existing file or folder."""
    if not argument:
        raise SourceError("a SOURCE is empty text, perhaps a variable that is not set; give a folder or tar files")
    if storage_of(argument).kind(_plain(argument)):
        return [_plain(argument)]
    if "{" in argument:
        try:
            addresses = [_plain(item) for item in braceexpand(argument)]
        except UnbalancedBracesError as error:
            raise SourceError(f"{argument}: its braces do not balance; write train-{{000..099}}.tar") from error
        missing = [address for address in addresses if not storage_of(address).kind(address)]
        if missing:
            raise SourceError(f"{argument}: {len(missing)} of {len(addresses)} files do not exist, first {missing[0]}")
        return addresses
    raise SourceError(f"{argument}: no such file or folder; give a folder of images or tar files")


def _plain(argument: str) -> str:
    """Return an address as messages have it: a local path without doubled or trailing slashes."""
    return argument if "://" in argument else str(Path(argument))


def _is_folder(address: str) -> bool:
    return storage_of(address).kind(address) == "folder"


def _scan(folder: str, prefix: str) -> _Found:
    storage, found = storage_of(folder), _Found()
    for relative, entry in _walk(storage, folder, "", frozenset()):
        suffix = _suffix(entry.name)
        if entry.kind == "file" and suffix in SUFFIXES:
            size = storage.size(entry.address) if entry.size is None else entry.size
            found.files.append(ImageFile(as_text(prefix + relative), entry.address, size))
        elif entry.kind == "file" and suffix in CONTAINERS:
            found.containers.append(entry.address)
        else:
            found.ignored += 1
    found.containers.sort(key=os.fsencode)
    if not found.files and not found.containers:
        others = f" ({found.ignored} files of other kinds)" if found.ignored else ""
        raise SourceError(f"{folder}: holds no images{others}; expected {' '.join(sorted(SUFFIXES))} or .tar files")
    return found


def _walk(storage: Storage, folder: str, relative: str, above: frozenset[str]) -> Iterator[tuple[str, Entry]]:
    """Files below a folder with their relative paths; hidden names and link loops are passed over.

    So are runs and token folders of imtok's own, which people put beside their images.
    """
    try:
        true_folder = storage.resolve(folder)
        entries = sorted(storage.list(folder))
    except OSError as error:
        place = error.filename or folder
        raise SourceError(f"{place}: cannot be listed ({error.strerror}); check its permissions") from error
    if true_folder in above or (relative and _is_ours({entry.name for entry in entries})):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.kind == "folder":
            yield from _walk(storage, entry.address, f"{relative}{entry.name}/", above | {true_folder})
        else:
            yield f"{relative}{entry.name}", entry


def _is_ours(names: set[str]) -> bool:
    return "imtok.json" in names or {"config.yaml", ".lock"} <= names


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (a Path per file is slow for millions)


def _prefixes(folders: list[str]) -> dict[str, str]:
    """Return the beginning of each folder's keys: nothing for one folder, its name for one of several."""
    if len(folders) <= 1:
        return dict.fromkeys(folders, "")
    names = [PurePath(storage_of(folder).resolve(folder)).name for folder in folders]
    for name, times in Counter(names).items():
        if times > 1:
            raise SourceError(f"{times} of the given folders are called {name}; their keys would collide, rename one")
    return {folder: f"{name}/" for folder, name in zip(folders, names, strict=True)}


def _refuse_twins(files: list[ImageFile | LostImage]) -> None:
    for one, other in itertools.pairwise(files):
        if one.key == other.key:
            raise SourceError(f"{one.address} and {other.address}: both would have the key {one.key}; give one of them")


def _name_containers(addresses: list[str], reading: Reading) -> list[ContainerFile]:
    """Name containers by their stem, led by as many parent folders as it takes to tell them apart."""
    resolved = [storage_of(address).resolve(address) for address in addresses]
    for address, times in Counter(resolved).items():
        if times > 1:
            raise SourceError(f"{address}: given {times} times; give each tar once")
    paths = [PurePath(address) for address in resolved]
    names = [as_text("-".join(path.parts)) for path in paths]  # where only their suffixes differ
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        shorter = [as_text("-".join(path.with_suffix("").parts[-depth:])) for path in paths]
        if len(set(shorter)) == len(paths):
            names = shorter
            break
    return [
        ContainerFile(name, address, storage_of(address).size(address), reading)
        for name, address in zip(names, addresses, strict=True)
    ]
