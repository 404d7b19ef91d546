"""Files of other machines for one job: looked at before it begins, then fetched whole, some ahead of their use.

A fetched file lies in a folder of this process below the folder for temporary files, until nobody holds it and its
room is needed. Single images are fetched into memory, see `remote_images.py`.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import BinaryIO, TypeVar

from imtok.data.addresses import is_remote, redacted
from imtok.data.containers import UNKNOWN_SIZE, unreadable
from imtok.data.listing import Entry, Kind
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.remote_images import ImagePool
from imtok.data.storage import Storage, storage_of
from imtok.data.streaming.source import never
from imtok.data.streaming.transfers import Patience, patiently, receive, unless_missing
from imtok.errors import DiskError, Interrupted, SourceError, disk_errors
from imtok.files import working_folder
from imtok.parallel import LeftBehind, result_of

T = TypeVar("T")

PATIENCE = Patience()
ROOM_BYTES = 2**32  # of fetched files that are kept, where the disk has twice as much
_GUESSED_BYTES = 2**28  # of a file whose server does not state its length
_FETCHED_AT_ONCE = 8
_MOMENT = 0.05  # seconds
_LOOKS_AT_ONCE = 16


@dataclass
class _Copy:
    """A file that is fetched, or is being fetched."""

    path: Path
    size: int  # bytes, or a guess
    done: Future[None]
    users: int = 0


class RemoteFiles:
    """The files of other machines that one job reads, as a storage with patience, whose errors are SourceErrors.

    It is a context, which removes its copies at the end.
    """

    def __init__(self, should_stop: Callable[[], bool] | None = None, room: int = ROOM_BYTES) -> None:
        self.patience, self.should_stop = PATIENCE, should_stop or never
        self._room = room
        self._ended = Event()
        self._looks, self._fetches = LeftBehind(_LOOKS_AT_ONCE), LeftBehind(_FETCHED_AT_ONCE)
        self.images = ImagePool(self.patience, self.should_stop)
        self._seen: dict[str, Future[Entry | None]] = {}
        self._copies: dict[str, _Copy] = {}  # the one used longest ago comes first
        self._numbers = itertools.count()
        self._folder: Path | None = None
        self._lock = Lock()
        self._exit = ExitStack()

    def __enter__(self) -> RemoteFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for threads in (self._looks, self._fetches, self.images):
            threads.close()
        self._exit.close()

    def look_at(self, addresses: Iterable[str]) -> None:
        """Ask for kind and size of many addresses at once; `kind` and `size` then wait for the answers."""
        for address in addresses:
            if address not in self._seen:
                self._seen[address] = self._looks.submit(partial(self._look, address))

    def remember(self, entry: Entry) -> None:
        """Keep what a listing says about a file."""
        if entry.size is not None:
            future: Future[Entry | None] = Future()
            future.set_result(entry)
            self._seen[entry.address] = future

    def kind(self, address: str) -> Kind | None:
        """Return whether an address is a folder or a file, None where nothing is there; raises SourceError."""
        entry = self._entry(address)
        return entry.kind if entry is not None else None

    def size(self, address: str) -> int:
        """Return the bytes of a file, UNKNOWN_SIZE where its server does not state them; raises SourceError."""
        entry = self._entry(address)
        if entry is None:
            raise SourceError(f"{redacted(address)}: does not exist; check the address")
        return UNKNOWN_SIZE if entry.size is None else entry.size

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:
        """Read some bytes of a file, such as its first ones; raises SourceError."""

        def read() -> bytes:
            if offset or size < 0:
                return _storage(address).read(address, offset, size)
            with _storage(address).chunks(address) as chunks:  # servers need not know ranges
                return chunks.read(size)

        return self._answer(address, read)

    def open(self, address: str) -> BinaryIO:
        """Open a file as a stream that can seek."""
        return _storage(address).open(address)

    def resolve(self, address: str) -> str:
        """Return the address, without the slash at the end of a folder."""
        return address.rstrip("/")

    def list(self, folder: str) -> Sequence[Entry]:
        """List one folder of a store; raises SourceError."""
        entries = self._answer(folder, lambda: _storage(folder).list(folder))
        # A folder that was made by hand is an object of its own, which some stores list.
        own = folder.rstrip("/")
        if not any(entry.address.rstrip("/") == own for entry in entries):
            return entries
        return [entry for entry in entries if entry.address.rstrip("/") != own]

    def matching(self, pattern: str) -> Sequence[Entry]:
        """List what matches a pattern with `*` in a store; raises SourceError."""
        return self._answer(pattern, lambda: _storage(pattern).glob(pattern))

    def begin(self, address: str, size: int, *, ahead: bool = False) -> bool:
        """Hold a copy of a file until `release`, and begin to fetch it unless it is there.

        With `ahead`, False is returned and nothing is done where there is no room beside the copies that are held.
        """
        with self._lock:
            copy = self._copies.pop(address, None)
            needed = _GUESSED_BYTES if size == UNKNOWN_SIZE else size
            if copy is None:
                held = sum(one.size for one in self._copies.values() if one.users)
                if ahead and held + needed > self._room:
                    return False
                self._evict(needed)
                copy = self._fetched(address, needed)
            self._copies[address] = copy
            copy.users += 1
        return True

    def ready(self, address: str) -> bool:
        """Wait a moment; return whether `path` would not wait any more. Raises Interrupted after a stop."""
        if self.should_stop():
            raise Interrupted("stopped on request")
        return bool(wait([self._copies[address].done], _MOMENT).done)

    def path(self, address: str) -> Path:
        """Return the copy of a file that is held, once it is whole.

        Raises SourceError after the last try, and DiskError where the disk has no room for it.
        """
        copy = self._copies[address]
        try:
            result_of(copy.done, self.should_stop)
        except RemoteError as error:
            raise unreadable(address, error) from None
        return copy.path

    def fetch_again(self, address: str) -> Path:
        """Fetch a file that is held once more, as its copy is damaged; raises as `path` does."""
        with self._lock:
            old = self._copies[address]
            old.path.unlink(missing_ok=True)
            new = self._copies[address] = self._fetched(address, old.size)
            new.users = old.users
        return self.path(address)

    def release(self, address: str) -> None:
        """Hold a copy no longer; it stays until its room is needed, unless it could not be fetched."""
        with self._lock:
            copy = self._copies[address]
            copy.users -= 1
            if not copy.users and copy.done.done() and copy.done.exception() is not None:
                del self._copies[address]
                copy.path.unlink(missing_ok=True)
            else:
                self._evict(0)

    def _entry(self, address: str) -> Entry | None:
        self.look_at([address])
        try:
            return result_of(self._seen[address], self.should_stop)
        except RemoteError as error:
            raise unreadable(address, error) from None

    def _look(self, address: str) -> Entry | None:
        look = partial(_storage(address).look, address)
        return patiently(lambda: unless_missing(look), self.patience, self._stopped)

    def _answer(self, address: str, call: Callable[[], T]) -> T:
        """Return what a call on another thread returns, so that a stop need not wait for it."""
        try:
            asking = self._looks.submit(lambda: patiently(call, self.patience, self._stopped))
            return result_of(asking, self.should_stop)
        except RemoteError as error:
            raise unreadable(address, error) from None

    def _fetched(self, address: str, size: int) -> _Copy:
        """Begin to fetch a file."""
        if self._folder is None:
            parent = Path(tempfile.gettempdir())
            self._folder = self._exit.enter_context(working_folder(parent, "imtok-fetched"))
            with disk_errors(parent):
                self._room = min(self._room, shutil.disk_usage(parent).free // 2)
        path = self._folder / str(next(self._numbers))
        return _Copy(path, size, self._fetches.submit(lambda: self._fetch(address, path)))

    def _fetch(self, address: str, path: Path) -> None:
        try:
            patiently(lambda: self._fetch_once(address, path), self.patience, self._stopped)
        except DiskError as error:
            with self._lock:
                evicted = self._evict(self._room)
            if not error.full or not evicted:
                raise
            patiently(lambda: self._fetch_once(address, path), self.patience, self._stopped)

    def _fetch_once(self, address: str, path: Path) -> None:
        with disk_errors(path.parent), path.open("wb") as file:
            receive(_storage(address), address, file.write, self._ended.is_set)

    def _evict(self, needed: int) -> bool:
        """Remove copies that nobody holds, the ones used longest ago first, until `needed` bytes fit."""
        evicted = False
        room = self._room - needed - sum(copy.size for copy in self._copies.values())
        for address in [address for address, copy in self._copies.items() if not copy.users and copy.done.done()]:
            if room >= 0:
                break
            copy = self._copies.pop(address)
            room += copy.size
            with suppress(OSError):
                copy.path.unlink()
            evicted = True
        return evicted

    def _stopped(self) -> bool:
        return self._ended.is_set() or self.should_stop()


def storage_for(address: str, remote: RemoteFiles | None) -> Storage:
    """Return the storage of an address, with the patience of a job where it lies on another machine."""
    return remote if remote is not None and is_remote(address) else storage_of(address)


def _storage(address: str) -> RemoteStorage:
    storage = storage_of(address)
    assert isinstance(storage, RemoteStorage)
    return storage
