"""Files that are hashed while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imtok.errors import DiskError
from imtok.export import hashing
from imtok.export.hashing import describe_file, hashed_writer

PARTS = [b"a" * 1000, np.arange(5000, dtype=np.uint16).data, b"", b"end"]
WHOLE = b"".join(bytes(part) for part in PARTS)


def test_the_hash_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_SYNC_BYTES", 100)
    with hashed_writer(tmp_path / "file") as file:
        for part in PARTS:
            file.write(part)
    assert (tmp_path / "file").read_bytes() == WHOLE
    described = describe_file(tmp_path, "file")
    assert (described.bytes, described.sha256) == (len(WHOLE), hashlib.sha256(WHOLE).hexdigest())


@pytest.mark.parametrize("content", [WHOLE, b"two"], ids=["of another size", "of the same size"])
def test_a_file_of_another_writer_is_read_for_its_hash(tmp_path: Path, content: bytes) -> None:
    with hashed_writer(tmp_path / "file") as file:
        file.write(b"one")
    (tmp_path / "other").write_bytes(content)
    (tmp_path / "other").replace(tmp_path / "file")
    described = describe_file(tmp_path, "file")
    assert (described.bytes, described.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"one"
        raise KeyError

    with pytest.raises(KeyError), hashed_writer(tmp_path / "file") as file:
        file.writelines(parts())
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_the_disk_lost_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, []

    def failing_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(hashing, "_SYNC_BYTES", 100)
    monkeypatch.setattr(os, "fsync", failing_once)
    with pytest.raises(DiskError), hashed_writer(tmp_path / "file") as file:
        file.write(b"a" * 1000)
    assert list(tmp_path.iterdir()) == []
