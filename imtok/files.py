"""Files that appear whole or not at all, whatever happens to the process that writes them.

A temporary is named after its target, lies in the same folder and is held by `flock` while its writer lives, so a
sweep removes what the dead left and nothing else.

Network file systems may lack locks, hard links or the sync of a folder (Lustre, CIFS, NFS, many in user space). They
are used without, and an UnprotectedWarning names what may be lost; every other error of the disk stays an error.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from imtok.errors import ImtokError, UnprotectedWarning, disk_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".tmp-"

# Answers of a file system that lacks the call; none of them is one of a disk that fails.
LACKING = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
_NO_FOLDER_SYNC = LACKING | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}  # a folder may refuse to be opened
_NO_LINKS = LACKING | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
_NO_LOCKS = LACKING | {errno.ENOLCK, errno.EBADF}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # the last by POSIX, where locks are those of `fcntl`

# What a file system lacks, and what may be lost by it.
_NO_SYNC = "cannot sync what is written", "a power cut may take files written shortly before"
_NO_LINK = (
    "has no hard links",
    "of two processes that create a file at one moment both succeed, and one replaces the other's",
)
_NO_LOCK = "has no file locks", "take care that one process at a time works in this folder"

_warned: set[tuple[str, int]] = set()  # (what is lacking, the number of the file system)


def write_atomically(path: Path, data: bytes | Iterable[bytes], *, durable: bool = True) -> None:
    """Write `data` to `path` under another name, then rename it; an older file is replaced.

    `durable` syncs it to disk first; without, a kill never leaves half a file, but a power cut may.
    Raises DiskError where the disk refuses, with the temporary removed, and OSError as `check_file_target` does.
    """
    with atomic_writer(path, durable=durable) as file:
        file.writelines((data,) if isinstance(data, bytes) else data)


@contextmanager
def atomic_writer(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when the block ends well; when it raises, `path` stays as it was.

    Raises OSError where `path` is there and no regular file, as a folder or a device would be replaced by the rename.
    """
    _check_regular(path)
    with disk_errors(path), _temporary(path) as (file, temporary):
        yield file
        if durable:
            sync_file(file)
        else:
            file.flush()
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)


def publish_once(path: Path, data: bytes | Iterable[bytes]) -> bool:
    """Create `path` with `data` unless it exists; True when this call made it. Of several callers one wins."""
    if path.exists():
        return False
    with disk_errors(path), _temporary(path) as (file, temporary):
        file.writelines((data,) if isinstance(data, bytes) else data)
        sync_file(file)
        won = _link_once(temporary, path)
        if won:
            sync_folder(path.parent)
    return won


def _link_once(temporary: Path, path: Path) -> bool:
    """Give a temporary the name `path` too; False where another has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return path.samefile(temporary)  # NFS repeats a call whose answer was lost: then it is this one
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        _warn_once(*_NO_LINK, path.parent)
        temporary.replace(path)
    return True


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well; when it raises, nothing is left of it.

    `path` may be an empty folder before. Raises FileExistsError where it is anything else, DiskError where the disk
    refuses. Folders that killed processes left for the same path are removed first.
    """
    check_locks()
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, "is there already, expected a new name or an empty folder", str(path))
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_folders(path)
        temporary, descriptor = _held_folder(path.parent, path.name, 0o777)
        try:
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as opened:
                    sync_file(opened)
            sync_folder(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            os.close(descriptor)
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def working_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder for files of this process alone; afterwards nothing of it is left.

    Folders of the same name that killed processes left are removed first. Raises DiskError where the disk refuses.
    """
    check_locks()
    with disk_errors(parent):
        _remove_dead_folders(parent / name)
        folder, descriptor = _held_folder(parent, name, 0o700)
    try:
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _held_folder(parent: Path, name: str, mode: int) -> tuple[Path, int]:
    """Make and lock a temporary folder; return it with the descriptor that holds it."""
    while True:
        folder = parent / f"{_PREFIX}{name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(mode)
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # without locks nothing is removed as dead either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():  # a sweep between creation and lock may have taken it
                return folder, descriptor
            os.close(descriptor)


def _remove_dead_folders(path: Path) -> None:
    """Remove the temporary folders of `path` that no living process holds."""
    for temporary in path.parent.glob(f"{_PREFIX}{glob.escape(path.name)}-*"):
        with suppress(OSError):
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(temporary)
            finally:
                os.close(descriptor)


def local_path(name: str) -> Path:
    """Return the path of a name that is text: its bytes on disk are UTF-8, whatever the locale knows."""
    return Path(os.fsdecode(name.encode("utf-8", "surrogateescape")))


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


def lock(file: IO[Any], *, wait: bool) -> bool:
    """Lock a file that is open for writing; False where its file system has no locks.

    Raises BlockingIOError where another process holds it and `wait` is False, and other errors of the disk as OSError.
    """
    check_locks()
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD and not wait:
            raise BlockingIOError(error.errno, "is held by another process", str(file.name)) from error
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(file.name)) from error
        return False
    return True


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the file `path` for this process, and create it where it is missing.

    Raises BlockingIOError while another process holds it. Without locks all proceed, with an UnprotectedWarning.
    """
    check_locks()
    with disk_errors(path):
        file = path.open("a")
    with file:
        if not lock(file, wait=False):
            _warn_once(*_NO_LOCK, path.parent)
        yield


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
        # Opened for writing, as NFS demands it of whoever locks.
        with suppress(OSError), temporary.open("r+b") as file:
            if lock(file, wait=False):
                temporary.unlink()
                swept += 1
    return swept


def sync_file(file: IO[Any]) -> None:
    """Make what was written to an open file survive a power cut, where the file system can; flushes it first."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in LACKING:
            raise
        _warn_once(*_NO_SYNC, Path(file.name).parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut, where the file system can; raises OSError naming the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        _warn_once(*_NO_SYNC, folder)


def _warn_once(lack: str, lost: str, folder: Path) -> None:
    """Warn once a process that the file system of `folder` lacks a protection."""
    key = lack, folder.stat().st_dev
    if key not in _warned:
        _warned.add(key)
        warnings.warn(f"{folder}: its file system {lack}; {lost}", UnprotectedWarning, stacklevel=2)


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
        # Without locks a sweep cannot take one either, and leaves all as it is: nothing is lost, so no warning.
        with suppress(OSError):
            lock(file, wait=True)
        # A sweep between creation and lock may have taken it: then the name is gone, and another is tried.
        if temporary.exists():
            break
        file.close()
    try:
        yield file, temporary
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the caller knows
        raise
    finally:
        # Closing flushes what a full disk refused and would raise again; the first error is the one that counts.
        with suppress(OSError):
            file.close()
        temporary.unlink(missing_ok=True)
