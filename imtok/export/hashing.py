"""Files of an export that a second thread hashes while they are written.

To read a file again for its hash would take as long as a third of its writing. hashlib and the system let go of the
interpreter's lock, so the hash costs nothing on a second core.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, BinaryIO, cast

from imtok.export.record import ExportedFile
from imtok.files import atomic_writer

_AHEAD = 4  # writes that may wait for the hash; each holds a block in memory

_known: dict[Path, tuple[int, str]] = {}  # bytes and SHA-256 of files that were written and not yet described


@contextmanager
def hashed_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file as `imtok.files.atomic_writer` does, only for `write`, and hash it at the same time.

    What is written must not be changed before the block ends.
    """
    with atomic_writer(path) as file:
        hashing = _Hashing(file)
        try:
            yield cast(BinaryIO, hashing)
        finally:
            digest = hashing.finish()
    _known[path] = hashing.size, digest


def describe_file(folder: Path, path: str) -> ExportedFile:
    """Return the record's line of a file below `folder`; what `hashed_writer` has hashed is not read again."""
    size, digest = _known.pop(folder / path, (-1, ""))
    if size != (folder / path).stat().st_size:
        with (folder / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    return ExportedFile(path=path, bytes=size, sha256=digest)


class _Hashing(io.RawIOBase):
    """Writes to a file and hands the same bytes to a thread that hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self._queue: Queue[Any] = Queue(_AHEAD)
        self._thread = Thread(target=self._update, name="imtok-hash", daemon=True)
        self._thread.start()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write bytes or an array's memory."""
        self._queue.put(data)
        size = memoryview(data).nbytes
        self._file.write(data)
        self.size += size
        return size

    def finish(self) -> str:
        """Wait for the thread; return the hash."""
        self._queue.put(None)
        self._thread.join()
        return self._hash.hexdigest()

    def _update(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)
