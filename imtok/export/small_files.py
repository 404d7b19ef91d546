"""Many small files that become one piece of an export.

All but the last are written under their own names, and one call syncs their file system: a rename, a lock and a sync
for each would cost many times what its bytes cost. The last appears by one rename after that. So the piece is whole
where its last file is there; a stop before leaves files that the next run writes again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from imtok.errors import disk_errors
from imtok.files import atomic_writer, sync_file, sync_folder


def write_small_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files, given as (POSIX path below `folder`, content).

    Raises DiskError where the disk refuses, with the half-written file removed.
    """
    names: list[str] = []
    parents: set[Path] = set()
    held: tuple[str, bytes] | None = None
    for file in files:
        if held is not None:
            _write(folder / held[0], held[1], parents)
        held = file
        names.append(file[0])
    if held is None:
        return
    with disk_errors(folder):
        if not _sync_file_system(folder):
            _sync_each([folder / name for name in names[:-1]])
    with atomic_writer(folder / held[0]) as last:
        last.write(held[1])


def _write(path: Path, data: bytes, parents: set[Path]) -> None:
    with disk_errors(path):
        if path.parent not in parents:
            path.parent.mkdir(parents=True, exist_ok=True)
            parents.add(path.parent)
        try:
            path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _sync_file_system(folder: Path) -> bool:
    """Sync the file system of a folder by Linux's syncfs; False where the system has no such call."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)
    return True


def _sync_each(paths: Sequence[Path]) -> None:
    for path in paths:
        with path.open("rb") as written:
            sync_file(written)
    for parent in sorted({path.parent for path in paths}):
        sync_folder(parent)
