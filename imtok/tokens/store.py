"""The files of a token folder by name, on the disks of this machine or as objects of a store.

Modules that read or write token folders take a `Location` and reach its files through a `Store` alone. A file of a
local folder is a path. A file of an object store is an `ObjectFile`, with the few methods of a path that readers need.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from imtok.data.addresses import is_remote
from imtok.errors import TokensError, disk_errors
from imtok.files import check_locks, publish_once, sweep_temporaries, write_atomically


class StoredFile(Protocol):
    """A file of a token folder; a `Path` is one. Its text is its path, or its address without secrets."""

    @property
    def name(self) -> str:
        """The last part of its name."""

    def exists(self) -> bool:
        """Return whether it is there."""

    def read_bytes(self) -> bytes:
        """Read all of it; raises FileNotFoundError where it is missing."""

    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """Open it for reading from its beginning; raises FileNotFoundError where it is missing."""


class Store(ABC):
    """A token folder's files by their POSIX paths below it. Its text is its path, or its address without secrets."""

    @abstractmethod
    def file(self, name: str) -> StoredFile:
        """Return the file of this name, which need not be there."""

    @abstractmethod
    def exists(self) -> bool:
        """Return whether the folder is there."""

    @abstractmethod
    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below one of its folders, in any order; none where it is missing."""

    @abstractmethod
    def check_new(self) -> None:
        """Raise TokensError where no token folder can be begun, such as where files of something else are."""

    @abstractmethod
    def make(self) -> None:
        """Create the folder, where that is needed; raises DiskError."""

    @abstractmethod
    def publish_once(self, name: str, data: bytes | Iterable[bytes]) -> bool:
        """Create a file unless it is there; True when this call made it. Of several callers one wins."""

    @abstractmethod
    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write a file whole, whatever was there."""

    @abstractmethod
    def append(self, name: str, data: bytes) -> None:
        """Add to a file on which nothing relies; failures are passed over."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def flush(self) -> None:
        """Write what `append` may still hold back."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what dead processes left half written."""

    @abstractmethod
    def local_folder(self, name: str) -> AbstractContextManager[Path]:
        """Give one of its small folders as a folder of this machine, for the time of a `with` block."""


Location = str | Path | Store


def store_of(location: Location) -> Store:
    """Return the store of a token folder: a path, or an address such as `s3://bucket/tokens`."""
    if isinstance(location, Store):
        return location
    if isinstance(location, str) and is_remote(location):
        from imtok.tokens.object_store import ObjectStore

        return ObjectStore(location)
    return LocalStore(Path(location))


@dataclass(frozen=True)
class LocalStore(Store):
    """A token folder on a disk of this machine."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def file(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def exists(self) -> bool:
        """Return whether the folder is there."""
        return self.folder.exists()

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below one of its folders, in any order; none where it is missing."""
        for parent, _, names in os.walk(self.folder / folder):  # a path for each of a million files is slow
            below = Path(parent).relative_to(self.folder).as_posix()
            yield from (f"{below}/{name}" for name in names)

    def check_new(self) -> None:
        """Raise TokensError where a file, or a folder of something else, has this name."""
        if self.folder.exists() and not self.folder.is_dir():
            raise TokensError(f"{self}: a file, expected a folder for the tokens; give another name")
        if self.folder.exists() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise TokensError(f"{self}: holds files and is no token folder; give an empty or a new one")

    def make(self) -> None:
        """Create the folder."""
        check_locks()
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def publish_once(self, name: str, data: bytes | Iterable[bytes]) -> bool:
        """Create a file by an exclusive link."""
        return publish_once(self.folder / name, data)

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write a file under another name, then rename it."""
        write_atomically(self.folder / name, data)

    def append(self, name: str, data: bytes) -> None:
        """Add to a file, if the disk lets it."""
        path = self.folder / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def flush(self) -> None:
        """Do nothing: `append` holds nothing back."""

    def sweep(self) -> None:
        """Remove temporaries that no living process holds."""
        sweep_temporaries(self.folder)

    def local_folder(self, name: str) -> AbstractContextManager[Path]:
        """Give one of its folders, as it is."""
        return nullcontext(self.folder / name)
