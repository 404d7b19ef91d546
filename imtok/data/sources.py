"""SOURCE arguments: which images and containers a list of folders, tars and patterns names.

A key is an image's POSIX path relative to its folder, with its suffix. With several folders each key begins with
its folder's name. Lists are sorted by the bytes of their keys, so every machine sees the same order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from imtok.counted import counted
from imtok.data.addresses import is_remote, plain_address, redacted
from imtok.data.archives.compression import compression_advice, compression_of
from imtok.data.archives.parquet import open_parquet, require_pyarrow
from imtok.data.archives.tars import open_tar
from imtok.data.archives.zips import open_zip
from imtok.data.container_names import name_containers, refuse_links_to_one, true_addresses
from imtok.data.containers import Container, ImageFile, LostImage, as_text, unreadable
from imtok.data.file_list import GrowingFileList, Place
from imtok.data.kinds import FileKind, container_kind_of, kind_of, suffix_of
from imtok.data.listing import Entry
from imtok.data.pixels.formats import image_suffixes, looks_like_image
from imtok.data.plain_images import plain_images
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.storage import Storage, storage_of
from imtok.data.walk import FolderFiles, walk
from imtok.errors import SourceError

# Readers of containers by the suffix of the file. A new kind of container is a module and a line here.
CONTAINERS: dict[str, Callable[[str, Reading], Container]] = {
    ".tar": open_tar,
    ".zip": open_zip,
    ".parquet": open_parquet,
}

_SINCE_2 = frozenset({".zip", ".parquet"})  # containers under rules 2
_HEAD_BYTES = 512  # a tar says what it is near the end of its first block


@dataclass(frozen=True)
class ContainerFile:
    """A container among the sources; `name` is unique among the containers of a job."""

    name: str
    address: str
    size: int  # bytes
    reading: Reading = DEFAULT_READING
    kind: str = ".tar"  # the suffix that chooses its reader

    def open(self) -> Container:
        """Read what it holds; raises SourceError where it cannot be read or has changed since it was listed."""
        try:
            container = CONTAINERS[self.kind](self.address, self.reading)
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

    files: Sequence[ImageFile | LostImage]  # a FileList, so that millions take little memory
    containers: tuple[ContainerFile, ...]
    ignored: int  # files of other kinds; hidden files are left uncounted
    ignored_containers: int = 0  # containers beside images
    notes: tuple[str, ...] = ()  # what a person has to know about the sources
    roots: tuple[tuple[str, str], ...] = ()  # folders that were given, each after the beginning of its keys
    texts: Mapping[str, int] = field(default_factory=dict)  # .cls, .json and dataset.json among the ignored


def find_sources(
    arguments: Sequence[str | Path],
    reading: Reading = DEFAULT_READING,
    *,
    known: Mapping[str, int] | None = None,
) -> Sources:
    """Resolve folders, containers, single images and brace patterns such as `train-{000..099}.tar`.

    `known` are the names and bytes of containers that a job has recorded: they keep their names.
    Raises SourceError, naming the argument, for what does not exist, holds no images, or cannot be told apart.
    """
    addresses = [address for argument in arguments for address in _expand(str(argument))]
    prefixes = _prefixes([address for address in addresses if _is_folder(address)], reading)
    files = GrowingFileList()
    all_found = [
        _scan(address, prefixes[address], reading, files) if address in prefixes else _single(address, reading, files)
        for address in addresses
    ]
    sorted_files = files.sorted()
    kinds = {address: kind for found in all_found for address, kind in found.containers}
    listed = [address for found in all_found for address, _ in found.containers]
    for address in listed:
        if kinds[address] == ".parquet":
            require_pyarrow(address)
    containers = tuple(
        ContainerFile(name, address, storage_of(address).size(address), reading, kinds[address])
        for name, address in name_containers(listed, known or {}, reading.rules)
    )
    ignored, ignored_containers = (sum(found.ignored for found in all_found), sum(found.beside for found in all_found))
    notes = tuple(note for found in all_found for note in found.notes)
    roots = tuple((as_text(prefix), folder) for folder, prefix in prefixes.items())
    texts = sum((found.texts for found in all_found), Counter[str]())
    return Sources(sorted_files, containers, ignored, ignored_containers, notes, roots, texts)


@dataclass
class _Found:
    """The sources that one argument names, beside its images."""

    containers: list[tuple[str, str]] = field(default_factory=list)  # addresses and kinds
    ignored: int = 0
    beside: int = 0  # containers that were ignored, as they lie beside images
    notes: list[str] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)  # .cls, .json and dataset.json among the ignored
    compressed: list[str] = field(default_factory=list)  # archives that cannot be read, by their relative paths


def _expand(argument: str) -> list[str]:
    """Return the addresses that an argument names, each of an existing file or folder."""
    if not argument:
        raise SourceError("a SOURCE is empty text, perhaps a variable that is not set; give a folder or tar files")
    argument = plain_address(argument)
    if is_remote(argument):
        raise SourceError(
            f"{redacted(argument)}: remote sources are read by train and eval alone, as streams of tars; copy the "
            "files here and give their folder"
        )
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


def _single(address: str, reading: Reading, files: GrowingFileList) -> _Found:
    """Look at one file that was named; adds it to the files where it is an image."""
    kind, container = _kind_of(address, reading), container_kind_of(address)
    if reading.rules > 1 and storage_of(address).kind(address) == "other":
        raise SourceError(f"{address}: neither a file nor a folder; copy what it gives into a file")
    head = b""
    if reading.rules > 1 and kind != "image" and container not in CONTAINERS:
        try:
            head = storage_of(address).read(address, 0, _HEAD_BYTES)
        except OSError as error:
            raise unreadable(address, error) from error
        container = container_kind_of(address, head)
    if kind == "image" or (kind == "unknown" and looks_like_image(head)):
        name = PurePath(address).name
        files.add(Place("", address.removesuffix(name)), name, address, storage_of(address).size(address))
        return _Found()
    if container in _readers(reading):
        return _Found(containers=[(address, container)])
    if container in CONTAINERS:
        raise SourceError(f"{address}: rules 1 read no {container} files; encode it into a token folder of its own")
    compression = compression_of(head)
    if compression is not None:
        raise SourceError(f"{address}: {compression_advice(compression)}")
    raise SourceError(f"{address}: neither a folder, nor an image, nor a {_readable(reading)}; give one of these")


def _scan(folder: str, prefix: str, reading: Reading, files: GrowingFileList) -> _Found:
    """Look through a folder; adds its images to the files."""
    scan = _Scan(folder, prefix, reading, files)
    for found_files in walk(scan.storage, folder):
        scan.add_files(found_files)
    found = scan.found
    found.containers.sort(key=lambda one: os.fsencode(one[0]))
    found.compressed.sort(key=lambda relative: relative.split("/"))
    if not scan.images and not found.containers:
        raise SourceError(_no_images(folder, found.ignored, found.compressed, reading))
    if found.compressed and reading.rules > 1:
        what = counted(len(found.compressed), "compressed archive", "compressed archives")
        first = as_text(found.compressed[0])
        found.notes.append(f"{folder}: {what}, first {first}: not read; unpack to plain tars first")
    scan.choose()
    return found


class _Scan:
    """The images and other files of one folder, as they are met."""

    def __init__(self, folder: str, prefix: str, reading: Reading, files: GrowingFileList) -> None:
        self.storage, self.found = storage_of(folder), _Found()
        self._folder, self._prefix, self._reading, self._files = folder, prefix, reading, files
        self._first = len(files)
        self._place: Place | None = None
        self._named = self._told = 0  # images by their names, and by their first bytes alone

    @property
    def images(self) -> int:
        """Images of the folder, with what bears an image's name and cannot be read."""
        return len(self._files) - self._first

    def add_files(self, files: FolderFiles) -> None:
        """Take files of a folder for what they are: plain images all at once, the others one by one."""
        if self._place is None:
            first = files.listing[files.start]
            self._place = Place(as_text(self._prefix), first.address.removesuffix(f"{files.relative}{first.name}"))
        beginning = self._place.folder + files.relative
        plain = plain_images(files, beginning, lambda name: _kind_of(name, self._reading))
        if plain is not None and plain.names:
            pairs = zip(plain.names, plain.sizes, strict=True)
            sizes = [self.storage.size(beginning + name) if size is None else size for name, size in pairs]
            self._files.add_folder(self._place, files.relative, plain.names, sizes)
            self._named += len(plain.names)
        for index in range(files.start, files.stop) if plain is None else plain.others:
            entry = files.listing[index]
            if not entry.name.startswith("."):
                self._add(f"{files.relative}{entry.name}", entry)

    def _add(self, relative: str, entry: Entry) -> None:
        """Take one file for what it is."""
        found, kind = self.found, _kind_of(entry.name, self._reading)
        if kind == "image" and (entry.kind == "file" or self._reading.rules > 1):
            self._named += self._add_image(relative, entry)
        elif kind == "container" and entry.kind == "file":
            found.containers.append((entry.address, container_kind_of(entry.name)))
        elif kind == "unknown" and entry.kind == "file" and _begins_as_image(self.storage, entry.address):
            self._told += self._add_image(relative, entry)
        else:
            found.ignored += 1
            if entry.name.lower().endswith((".cls", ".json")):
                found.texts["dataset.json" if relative == "dataset.json" else suffix_of(entry.name)] += 1
            found.compressed += [relative] * (kind == "compressed")

    def _add_image(self, relative: str, entry: Entry) -> bool:
        """Add a file; returns False for what cannot be one."""
        if entry.kind == "other":
            lost = "link to nothing", "its target does not exist"
            if self.storage.kind(entry.address) is not None:
                lost = "not a file", "a socket, a pipe or a device"
            self._files.add_object(LostImage(as_text(self._prefix + relative), entry.address, *lost))
            return False
        size = self.storage.size(entry.address) if entry.size is None else entry.size
        assert self._place is not None
        self._files.add(self._place, relative, entry.address, size)
        return True

    def choose(self) -> None:
        """Take the containers of a folder where no image lies beside them, and its images otherwise.

        A folder of shards is a list of shards; beside images, containers are just other files. A link to nothing, or
        a file that is an image by its first bytes alone, does not turn a folder of shards into one of images.
        """
        found = self.found
        if self._named or not found.containers:
            found.beside, found.containers = len(found.containers), []
            return
        found.ignored += self._told
        if self._told:
            for file in self._files.cut(self._first):
                if isinstance(file, LostImage):
                    self._files.add_object(file)
        known = set(found.containers)
        metadata = [one for one in found.containers if one[1] == ".parquet" and _has_twin(one[0], known)]
        if metadata:  # img2dataset writes a table of texts and addresses beside each of its tars
            what = counted(len(metadata), "Parquet file", "Parquet files")
            found.notes.append(f"{what}, first {metadata[0][0]}: taken for the table of the shard beside it, not read")
            left = set(metadata)
            found.containers = [one for one in found.containers if one not in left]
            found.ignored += len(metadata)


def _has_twin(address: str, containers: set[tuple[str, str]]) -> bool:
    stem = os.path.splitext(address)[0]  # noqa: PTH122  (as in `suffix_of`)
    return any((stem + kind, kind) in containers for kind in (".tar", ".zip"))


def _begins_as_image(storage: Storage, address: str) -> bool:
    try:
        return looks_like_image(storage.read(address, 0, _HEAD_BYTES))
    except OSError:
        return False  # nothing about it says that it is an image


def _kind_of(name: str, reading: Reading) -> FileKind:
    """Return what a file is by these rules, from its name."""
    suffix = suffix_of(name)
    if suffix in CONTAINERS:
        return "container" if suffix in _readers(reading) else "other"
    kind = kind_of(name, reading.rules)
    return "other" if kind == "container" or (kind == "unknown" and reading.rules == 1) else kind


def _readers(reading: Reading) -> frozenset[str]:
    """Kinds of containers that these rules read."""
    return frozenset(CONTAINERS) - (_SINCE_2 if reading.rules == 1 else frozenset())


def _readable(reading: Reading) -> str:
    *others, last = sorted(_readers(reading))
    return f"{', '.join(others)} or {last} file" if others else f"{last} file"


def _no_images(folder: str, ignored: int, compressed: list[str], reading: Reading) -> str:
    if compressed and reading.rules > 1:
        first = str(PurePath(folder) / compressed[0])
        kind = compression_of(storage_of(first).read(first, 0, _HEAD_BYTES)) or "gzip"
        return f"{folder}: holds no images but {as_text(compressed[0])}: {compression_advice(kind)}"
    others = f" ({counted(ignored, 'file of another kind', 'files of other kinds')})" if ignored else ""
    suffixes = " ".join(sorted(image_suffixes(reading.rules)))
    return f"{folder}: holds no images{others}; expected {suffixes} or {_readable(reading)}s"


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
