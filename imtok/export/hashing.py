"""Files of an export that a second thread hashes, and sends to the disk, while they are written.

To read a file again for its hash would take as long as a third of its writing. hashlib and the system let go of the
interpreter's lock, so the hash costs nothing on a second core.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, BinaryIO, cast

from imtok.export.file_runs import names_in
from imtok.export.record import ExportedFile
from imtok.files import LACKING, atomic_writer

_SYNC_BYTES = 32 << 20  # after so many the disk begins to write, so that the sync at the end has little left to do
_Identity = tuple[int, int, int]  # size, inode and time of a file: another one is there once they differ
_AHEAD = 4  # writes that may wait for the hash; each holds a block in memory

_known: dict[Path, tuple[_Identity, str]] = {}  # SHA-256 of files that were written and not yet described


@contextmanager
def hashed_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file as `imtok.files.atomic_writer` does, only for `write`, and hash it at the same time.

    What is written must not be changed before the block ends.
    """
    with atomic_writer(path) as file, ThreadPoolExecutor(1, "imtok-sync") as pool:
        hashing = _Hashing(file, pool)
        try:
            yield cast(BinaryIO, hashing)
        finally:
            hashing.join()
        digest = hashing.digest()
    _known[path] = _identity(path), digest


def describe_file(folder: Path, path: str) -> ExportedFile:
    """Return the record's line of a file or a run of files; what `hashed_writer` has hashed is not read again."""
    known = _known.pop(folder / path, None)
    if known is not None and known[0] == (identity := _identity(folder / path)):
        return ExportedFile(path=path, bytes=identity[0], sha256=known[1])
    size, digest = hash_files(folder / name for name in names_in(path))
    return ExportedFile(path=path, bytes=size, sha256=digest)


def hash_files(paths: Iterable[Path]) -> tuple[int, str]:
    """Return the bytes and the SHA-256 of files, one after the other."""
    digest, size = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
            size += file.tell()
    return size, digest.hexdigest()


def _identity(path: Path) -> _Identity:
    facts = path.stat()
    return facts.st_size, facts.st_ino, facts.st_mtime_ns


class _Hashing(io.RawIOBase):
    """Writes to a file, and hands the same bytes to a thread that hashes them."""

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._file, self._pool, self._hash = file, pool, hashlib.sha256()
        self._queue: Queue[Any] = Queue(_AHEAD)
        self._thread = Thread(target=self._update, name="imtok-hash", daemon=True)
        self._thread.start()
        self._sync: Future[None] | None = None
        self._unsynced = 0  # bytes

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write bytes or an array's memory."""
        self._queue.put(data)
        size = memoryview(data).nbytes
        self._file.write(data)
        self._unsynced += size
        if self._unsynced >= _SYNC_BYTES and (self._sync is None or self._sync.done()):
            self._check_sync()
            self._unsynced, self._sync = 0, self._pool.submit(os.fsync, self._file.fileno())
        return size

    def join(self) -> None:
        """Wait for the thread that hashes."""
        self._queue.put(None)
        self._thread.join()

    def digest(self) -> str:
        """Return the hash of what was written. Raises OSError where the disk refused a sync."""
        self._check_sync()
        return self._hash.hexdigest()

    def _check_sync(self) -> None:
        """Raise the error of the last sync: the system names a lost write once, so it must not be passed over."""
        error = None if self._sync is None else self._sync.exception()
        if error is not None and getattr(error, "errno", None) not in LACKING:
            raise error

    def _update(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)
