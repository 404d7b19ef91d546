"""Files that appear whole or not at all, whatever happens to the process that writes them.

A temporary is named after its target, lies in the same folder and is held by `flock` while its writer lives, so a
sweep removes what the dead left and nothing else.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from imtok.errors import ImtokError, disk_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".tmp-"


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` under another name, then rename it; an older file is replaced.

    `durable` syncs it to disk first; without, a kill never leaves half a file, but a power cut may.
    Raises DiskError where the disk refuses, with the temporary removed, and OSError as `check_file_target` does.
    """
    with atomic_writer(path, durable=durable) as file:
        file.write(data)


@contextmanager
def atomic_writer(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when the block ends well; when it raises, `path` stays as it was.

    Raises OSError where `path` is there and no regular file, as a folder or a device would be replaced by the rename.
    """
    _check_regular(path)
    with disk_errors(path), _temporary(path) as (file, temporary):
        yield file
        file.flush()
        if durable:
            os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)


def publish_once(path: Path, data: bytes) -> bool:
    """Create `path` with `data` unless it exists; True when this call made it. Of several callers one wins."""
    if path.exists():
        return False
    with disk_errors(path), _temporary(path) as (file, temporary):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if path.exists():
                return False
            temporary.replace(path)
        sync_folder(path.parent)
    return True


def check_file_target(path: Path) -> None:
    """Raise OSError, naming what is in the way, where no file could be written to `path`; nothing is made."""
    _check_regular(path)
    _check_writable(path.parent)


def check_folder_target(path: Path) -> None:
    """Raise OSError, naming what is in the way, where no files could be written into `path`; nothing is made."""
    _check_writable(path)


def check_locks() -> None:
    """Raise ImtokError where the system has no file locks, as on Windows: whatever imtok writes relies on them."""
    if fcntl is None:
        raise ImtokError(
            "this system has no file locks (Python's fcntl), which imtok needs to write; use Linux, macOS or WSL"
        )


def lock(file: IO[Any], *, wait: bool) -> None:
    """Lock an open file for this process; raises OSError where another holds it and `wait` is False."""
    check_locks()
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_regular(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory, expected the name of a file", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is no regular file, and only such a file is replaced", str(path))


def _check_writable(folder: Path) -> None:
    """Check a folder that may have to be made: the nearest that is there has to take entries."""
    check_locks()
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no directory, expected one to write into", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def sweep_temporaries(folder: Path) -> int:
    """Remove temporaries under `folder` that no living process holds; how many there were."""
    swept = 0
    for temporary in folder.rglob(f"{_PREFIX}*"):
        with suppress(OSError), temporary.open("rb") as file:
            lock(file, wait=False)
            temporary.unlink()
            swept += 1
    return swept


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open and lock a temporary beside `path`; it is gone afterwards unless it was renamed."""
    check_locks()
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        temporary = path.parent / f"{_PREFIX}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            file = temporary.open("xb")
        except OSError as error:
            error.filename = str(path)  # the name that the caller knows
            raise
        # Some cluster file systems know no locks; a sweep cannot take one there either, and leaves all as it is.
        with suppress(OSError):
            lock(file, wait=True)
        # A sweep between creation and lock may have taken it: then the name is gone, and another is tried.
        if temporary.exists():
            break
        file.close()
    try:
        yield file, temporary
    finally:
        # Closing flushes what a full disk refused and would raise again; the first error is the one that counts.
        with suppress(OSError):
            file.close()
        temporary.unlink(missing_ok=True)
