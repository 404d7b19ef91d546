"""Storages: where files lie, such as this machine's disks. A storage knows nothing of images.

The scheme of an address chooses the storage: `s3` in `s3://bucket/x.tar`, and no scheme for a path of this machine.
A new storage is a class with the methods of `Storage` and an entry in `STORAGES`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from imtok.data.addresses import REMOTE_SCHEMES, redacted, scheme_of
from imtok.data.listing import Entry as Entry
from imtok.data.listing import Kind as Kind
from imtok.data.remote import RemoteStorage
from imtok.errors import SourceError


class Storage(Protocol):
    """Files and folders by address. Methods raise OSError where one cannot be reached or read."""

    def kind(self, address: str) -> Kind | None:
        """Tell a folder from a file; None where nothing has this address."""

    def list(self, folder: str) -> Iterable[Entry]:
        """List one folder, without what lies in its subfolders, in any order."""

    def size(self, address: str) -> int:
        """Return the size of a file in bytes."""

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:
        """Read `size` bytes of a file from `offset` on, fewer where the file ends before; -1 reads to the end."""

    def open(self, address: str) -> BinaryIO:
        """Open a file as a stream that can seek."""

    def resolve(self, address: str) -> str:
        """Return the one true address of what may have several, such as a folder behind a link."""


class LocalStorage:
    """The disks of this machine, by path."""

    def kind(self, address: str) -> Kind | None:
        """Tell a folder from a file; links are followed."""
        path = Path(address)
        if path.is_dir():
            return "folder"
        if path.is_file():
            return "file"
        return "other" if path.exists() else None

    def list(self, folder: str) -> Iterator[Entry]:
        """List one folder; sizes are left out, as each would cost a look at its file."""
        with os.scandir(folder) as entries:  # a Path per file is slow for millions
            for entry in entries:
                yield Entry(entry.name, entry.path, _kind(entry))

    def size(self, address: str) -> int:
        """Return the size of a file in bytes."""
        return os.stat(address).st_size  # noqa: PTH116  (as in `list`)

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:
        """Read `size` bytes of a file from `offset` on."""
        with self.open(address) as file:
            if offset:
                file.seek(offset)
            return file.read(size)

    def open(self, address: str) -> BinaryIO:
        """Open a file as a stream that can seek."""
        return open(address, "rb")  # noqa: PTH123  (as in `list`; the caller closes it)

    def resolve(self, address: str) -> str:
        """Return the absolute path with links followed."""
        return os.path.realpath(address)


STORAGES: dict[str, Storage] = {"": LocalStorage(), **{scheme: RemoteStorage(scheme) for scheme in REMOTE_SCHEMES}}


def storage_of(address: str) -> Storage:
    """Return the storage that holds an address; raises SourceError where nothing reads its scheme."""
    storage = None if address.startswith("pipe:") else STORAGES.get(scheme_of(address))
    if storage is None:
        schemes = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise SourceError(f"{redacted(address)}: nothing reads this; give a path, or a URL of {schemes}")
    return storage


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_dir():
        return "folder"
    return "file" if entry.is_file() else "other"
