"""A token folder as objects of a store: S3 and Google Cloud Storage for reading and writing, web and Hub for reading.

A commit is a put that creates the object only where none is, so it is whole or missing and of two writers one wins.
There are no temporaries, and nothing to sweep. Faults of the network are tried again.
"""

from __future__ import annotations

import errno
import io
import math
import posixpath
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from imtok.data import objects
from imtok.data.addresses import plain_address, redacted, scheme_of
from imtok.data.remote import RemoteStorage, attempted
from imtok.data.remote_errors import RemoteError
from imtok.data.storage import storage_of
from imtok.data.streaming.source import never
from imtok.data.streaming.transfers import Patience, patiently
from imtok.errors import TokensError
from imtok.tokens.store import Store

_T = TypeVar("_T")

_BLOCK_BYTES = 2**23  # of one request, where a file is read from its beginning to its end
_PART_BYTES = 2**24  # of an object that is made while it is written; a store takes 10,000 parts
_JOURNAL_SECONDS = 15.0  # between two puts of one object of the journal
_JOURNAL_BYTES = 2**18  # of one object of the journal; the next line begins another

_patience = Patience()


class ObjectStore(Store):
    """A token folder below an address; picklable."""

    def __init__(self, address: str) -> None:
        self.address = plain_address(address).rstrip("/")
        self._journal: dict[str, _Growing] = {}

    def __str__(self) -> str:
        return redacted(self.address)

    @property
    def storage(self) -> RemoteStorage:
        """The storage of its scheme."""
        return cast(RemoteStorage, storage_of(self.address))

    def file(self, name: str) -> ObjectFile:
        """Return the object of this name."""
        return ObjectFile(self.storage, _joined(self.address, name))

    def exists(self) -> bool:
        """Return whether any object lies below the address."""
        return _answer(self, "looked at", lambda: self.storage.kind(self.address)) is not None

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all objects below one of its folders, in any order."""
        place = _joined(self.address, folder)
        start = len(place.partition("://")[2]) - len(folder)
        try:
            for entry in _answer(place, "listed", lambda: self.storage.find(place, "")):
                yield entry.address.partition("://")[2][start:]
        except FileNotFoundError:
            return

    def check_new(self) -> None:
        """Raise TokensError where objects of something else lie below the address, or nothing can be written."""
        scheme = scheme_of(self.address)
        if scheme not in objects.WRITABLE_SCHEMES:
            schemes = " or ".join(f"{each}://" for each in objects.WRITABLE_SCHEMES)
            raise TokensError(f"{self}: {scheme}:// is for reading only; give a path of this machine, or {schemes}")
        with suppress(FileNotFoundError):
            entries = _answer(self, "listed", lambda: self.storage.list(self.address))
            if any(not entry.name.startswith(".") and entry.name for entry in entries):
                raise TokensError(f"{self}: holds files and is no token folder; give an empty or a new one")

    def make(self) -> None:
        """Do nothing: a folder of a store needs no creation."""

    def publish_once(self, name: str, data: bytes | Iterable[bytes]) -> bool:
        """Create an object on the condition that there is none."""
        file = self.file(name)
        return not file.exists() and self._write(file, data, "") is not None

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write an object, whatever is there."""
        self._write(self.file(name), data, None)

    def _write(self, file: ObjectFile, data: bytes | Iterable[bytes], tag: str | None) -> str | None:
        """Write an object by a put, or in parts where it is long; `tag` and the result are those of `exchange`."""
        storage, address = self.storage, file.address
        parts = _parts(data)
        first = next(parts, b"")
        second = next(parts, None)
        upload = second and _answer(file, "written", lambda: objects.begin(storage, address))
        if not second or not upload:  # Google's store is written by one put, with all in memory
            whole = b"".join((first, second or b"", *parts))
            return _answer(file, "written", lambda: objects.exchange(storage, address, whole, tag))
        try:
            for part in chain((first, second), parts):
                _answer(file, "written", partial(attempted, partial(upload.add, part)))
            written = _answer(file, "written", lambda: objects.finish(storage, address, upload, tag))
        except BaseException:
            _abort(upload)
            raise
        if written is None:
            _abort(upload)
        return written

    def append(self, name: str, data: bytes) -> None:
        """Add to an object of this process alone; a store cannot, so it is written anew from time to time."""
        growing = self._journal.setdefault(name, _Growing())
        growing.content += data
        if time.monotonic() - growing.put_at >= _JOURNAL_SECONDS:
            self._put_journal(name)

    def flush(self) -> None:
        """Write what `append` holds back."""
        for name, growing in self._journal.items():
            if growing.content:
                self._put_journal(name)

    def _put_journal(self, name: str) -> None:
        growing = self._journal[name]
        growing.put_at = time.monotonic()
        stem, dot, suffix = name.rpartition(".")
        with suppress(RemoteError):
            objects.put(self.storage, _joined(self.address, f"{stem}-{growing.own_name}{dot}{suffix}"), growing.content)
        if len(growing.content) > _JOURNAL_BYTES:
            self._journal[name] = _Growing(put_at=growing.put_at)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        file = self.file(name)
        _answer(file, "removed", lambda: objects.remove(self.storage, file.address))

    def sweep(self) -> None:
        """Do nothing: an object is never half written."""

    @contextmanager
    def local_folder(self, name: str) -> Iterator[Path]:
        """Copy the objects of one of its folders into a temporary folder of this machine."""
        with tempfile.TemporaryDirectory(prefix="imtok-") as folder:
            for each in self.names(name):
                path = Path(folder) / each
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.file(each).read_bytes())
            yield Path(folder) / name

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_journal": {}}


@dataclass
class _Growing:
    """An object of the journal that is written anew as it grows."""

    put_at: float = -math.inf  # seconds of this process's clock
    content: bytes = b""
    own_name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])  # several processes may have one journal


class ObjectFile:
    """An object, with the methods of a path that readers of token folders need."""

    def __init__(self, storage: RemoteStorage, address: str) -> None:
        self.storage, self.address = storage, address

    def __str__(self) -> str:
        return redacted(self.address)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return posixpath.basename(self.address)

    def exists(self) -> bool:
        """Return whether it is there."""
        return _answer(self, "looked at", lambda: self.storage.kind(self.address)) == "file"

    def read_bytes(self) -> bytes:
        """Read all of it; raises FileNotFoundError where it is missing, TokensError where it cannot be read."""
        return _answer(self, "read", lambda: self.storage.read(self.address))

    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """Open it for reading from its beginning, by ranges of 8 MiB; raises as `read_bytes` does."""
        del mode
        return io.BufferedReader(_Ranges(self), _BLOCK_BYTES)

    def range(self, start: int, size: int) -> bytes:
        """Read so many bytes from `start` on, fewer where it ends before; raises as `read_bytes` does."""

        def read() -> bytes:
            try:
                return self.storage.read(self.address, start, size)
            except RemoteError as error:
                if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it ends before `start`
                    return b""
                raise

        return _answer(self, "read", read)

    def size(self) -> int:
        """Return its size in bytes; raises as `read_bytes` does."""
        return _answer(self, "read", lambda: self.storage.size(self.address))


class _Ranges(io.RawIOBase):
    """An object read by ranges."""

    def __init__(self, file: ObjectFile) -> None:
        self._file, self._size, self._at = file, file.size(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._at)
        data = self._file.range(self._at, size) if size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _answer(place: object, verb: str, call: Callable[[], _T]) -> _T:
    """Return the result of a request, which is repeated where it fails.

    Raises FileNotFoundError where the store says that there is no such object, and TokensError, which names `place`
    and has `verb` in it, where it fails to the end.
    """

    def once() -> _T:
        try:
            return call()
        except RemoteError as error:
            if error.missing and verb != "written":
                raise FileNotFoundError(errno.ENOENT, "does not exist", _shown(place)) from None
            raise

    try:
        return patiently(once, _patience, never)
    except RemoteError as error:
        raise TokensError(f"{_shown(place)}: cannot be {verb} ({error.reason}); {error.advice}") from None


def _shown(place: object) -> str:
    return redacted(str(place))


def _abort(upload: objects.Upload) -> None:
    """Drop parts, which nobody would see and somebody pays for."""
    with suppress(RemoteError):
        attempted(upload.abort)


def _parts(data: bytes | Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an object in parts: all at once where they are together."""
    if isinstance(data, bytes):
        yield data
        return
    held, size = list[bytes](), 0
    for some in data:
        held.append(some)
        size += len(some)
        if size >= _PART_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _joined(address: str, name: str) -> str:
    """Return the address of a name below another address, before what a URL has behind its path."""
    path, sign, query = address.partition("?")
    return f"{path}/{name}{sign}{query}"
