"""A bounded folder of whole shards, shared by all processes of a machine.

A file is named by a hash of its shard's address and by its length, so the folder holds no secret and a file of
another length is not used. Files appear whole or not at all. There are no locks: a file that another process removes
is fetched again, and one that is open stays readable until it is closed.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from imtok.errors import DiskError
from imtok.files import sweep_temporaries, write_atomically

_SUFFIX = ".tar"


class ShardCache:
    """Shards up to `limit` bytes; the ones used longest ago make room."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.refused: str | None = None  # why the disk took no shard, the last time

    def open(self, address: str) -> tuple[BinaryIO, int] | None:
        """Open a shard and return it with its length; None where the folder has it not."""
        for path in self.folder.glob(f"{_hash(address)}-*{_SUFFIX}"):
            with suppress(OSError, ValueError):
                length = int(path.stem.rpartition("-")[2])
                file = path.open("rb")
                if os.fstat(file.fileno()).st_size == length:
                    with suppress(OSError):  # a folder of another user may be read, too
                        os.utime(path)
                    return file, length
                file.close()
                self.drop(address)
        return None

    def put(self, address: str, data: bytes) -> None:
        """Keep a shard where it fits; a disk that takes none is survived."""
        if len(data) > self.limit:
            return
        try:
            self._make_room(len(data))
            write_atomically(self.folder / f"{_hash(address)}-{len(data)}{_SUFFIX}", data, durable=False)
        except (DiskError, OSError) as error:
            self.refused = str(error)

    def drop(self, address: str) -> None:
        """Remove a shard that proved to be damaged."""
        for path in self.folder.glob(f"{_hash(address)}-*{_SUFFIX}"):
            with suppress(OSError):
                path.unlink()

    def _make_room(self, needed: int) -> None:
        """Remove the shards used longest ago until `needed` bytes fit, and what killed processes left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(self.folder)
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):
                facts = path.stat()
                files.append((facts.st_mtime_ns, facts.st_size, path))
        free = self.limit - sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if free >= needed:
                return
            with suppress(OSError):
                path.unlink()
                free += size


def _hash(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:32]
