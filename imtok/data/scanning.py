"""The scan of a folder, or of one file that was named: which images and containers are there."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from imtok.counted import counted
from imtok.data.addresses import file_name, redacted
from imtok.data.archives.compression import compression_advice, compression_of
from imtok.data.archives.readers import CONTAINERS, kinds_of_containers, readable_containers
from imtok.data.containers import LostImage, as_text, unreadable
from imtok.data.file_list import GrowingFileList, Place
from imtok.data.kinds import FileKind, container_kind_of, kind_of, suffix_of
from imtok.data.listing import Entry
from imtok.data.pixels.formats import image_suffixes, looks_like_image
from imtok.data.plain_images import plain_images
from imtok.data.reading import Reading
from imtok.data.remote_files import RemoteFiles, storage_for
from imtok.data.storage import Storage
from imtok.data.walk import FolderFiles, walk
from imtok.errors import SourceError

_HEAD_BYTES = 512  # a tar says what it is near the end of its first block


@dataclass
class Found:
    """The sources that one argument names, beside its images."""

    containers: list[tuple[str, str]] = field(default_factory=list)  # addresses and kinds
    ignored: int = 0
    beside: int = 0  # containers that were ignored, as they lie beside images
    notes: list[str] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)  # .cls, .json and dataset.json among the ignored
    urls: bool = False  # whether a list names images of other machines
    compressed: list[str] = field(default_factory=list)  # archives that cannot be read, by their relative paths


def single_file(address: str, reading: Reading, files: GrowingFileList, remote: RemoteFiles | None) -> Found:
    """Look at one file that was named; adds it to the files where it is an image."""
    storage, shown, name = storage_for(address, remote), redacted(address), file_name(address)
    kind, container = kind_by_rules(name, reading), container_kind_of(name)
    if reading.rules > 1 and storage.kind(address) == "other":
        raise SourceError(f"{shown}: neither a file nor a folder; copy what it gives into a file")
    head = b""
    if reading.rules > 1 and kind != "image" and container not in CONTAINERS:
        try:
            head = storage.read(address, 0, _HEAD_BYTES)
        except OSError as error:
            raise unreadable(address, error) from error
        container = container_kind_of(name, head)
    if kind == "image" or (kind == "unknown" and looks_like_image(head)):
        files.add(Place("", address.removesuffix(name)), name, address, storage.size(address))
        return Found()
    if container in kinds_of_containers(reading):
        return Found(containers=[(address, container)])
    if container in CONTAINERS:
        raise SourceError(f"{shown}: rules 1 read no {container} files; encode it into a token folder of its own")
    compression = compression_of(head)
    if compression is not None:
        raise SourceError(f"{shown}: {compression_advice(compression)}")
    raise SourceError(
        f"{shown}: neither a folder, nor an image, nor a {readable_containers(reading)}; give one of these"
    )


def scan_folder(
    folder: str, prefix: str, reading: Reading, files: GrowingFileList, remote: RemoteFiles | None
) -> Found:
    """Look through a folder; adds its images to the files."""
    scan = _Scan(storage_for(folder, remote), folder, prefix, reading, files)
    for found_files in walk(scan.storage, folder):
        scan.add_files(found_files)
    found = scan.found
    found.containers.sort(key=lambda one: os.fsencode(one[0]))
    found.compressed.sort(key=lambda relative: relative.split("/"))
    if not scan.images and not found.containers:
        raise SourceError(_no_images(scan.storage, folder, found, reading))
    if found.compressed and reading.rules > 1:
        what = counted(len(found.compressed), "compressed archive", "compressed archives")
        first = as_text(found.compressed[0])
        found.notes.append(f"{folder}: {what}, first {first}: not read; unpack to plain tars first")
    scan.choose()
    return found


class _Scan:
    """The images and other files of one folder, as they are met."""

    def __init__(self, storage: Storage, folder: str, prefix: str, reading: Reading, files: GrowingFileList) -> None:
        self.storage, self.found = storage, Found()
        self._folder, self._prefix, self._reading, self._files = folder, prefix, reading, files
        self._first = len(files)
        self._place: Place | None = None
        self._named = self._told = 0  # images by their names, and by their first bytes alone

    @property
    def images(self) -> int:
        """Images of the folder, with what bears an image's name and cannot be read."""
        return len(self._files) - self._first

    def add_files(self, found: FolderFiles) -> None:
        """Take files of a folder for what they are: plain images all at once, the others one by one."""
        if self._place is None:
            first = found.files[0]
            self._place = Place(as_text(self._prefix), first.address.removesuffix(f"{found.relative}{first.name}"))
        beginning = self._place.folder + found.relative
        plain = plain_images(found.files, beginning, lambda name: kind_by_rules(name, self._reading))
        if plain is not None and plain.names:
            pairs = zip(plain.names, plain.sizes, strict=True)
            sizes = [self.storage.size(beginning + name) if size is None else size for name, size in pairs]
            self._files.add_folder(self._place, found.relative, plain.names, sizes)
            self._named += len(plain.names)
        for index in range(len(found.files)) if plain is None else plain.others:
            entry = found.files[index]
            if not entry.name.startswith("."):
                self._add(f"{found.relative}{entry.name}", entry)

    def _add(self, relative: str, entry: Entry) -> None:
        """Take one file for what it is."""
        found, kind = self.found, kind_by_rules(entry.name, self._reading)
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


def kind_by_rules(name: str, reading: Reading) -> FileKind:
    """Return what a file is by these rules, from its name."""
    suffix = suffix_of(name)
    if suffix in CONTAINERS:
        return "container" if suffix in kinds_of_containers(reading) else "other"
    kind = kind_of(name, reading.rules)
    return "other" if kind == "container" or (kind == "unknown" and reading.rules == 1) else kind


def _no_images(storage: Storage, folder: str, found: Found, reading: Reading) -> str:
    if found.compressed and reading.rules > 1:
        first = f"{folder.rstrip('/')}/{found.compressed[0]}"
        kind = compression_of(storage.read(first, 0, _HEAD_BYTES)) or "gzip"
        return f"{folder}: holds no images but {as_text(found.compressed[0])}: {compression_advice(kind)}"
    others = f" ({counted(found.ignored, 'file of another kind', 'files of other kinds')})" if found.ignored else ""
    suffixes = " ".join(sorted(image_suffixes(reading.rules)))
    return f"{folder}: holds no images{others}; expected {suffixes} or {readable_containers(reading)}s"
