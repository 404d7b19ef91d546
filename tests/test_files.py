"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from imtok import files
from imtok.errors import DiskError, UnprotectedWarning
from imtok.files import (
    atomic_folder,
    atomic_writer,
    check_file_target,
    check_folder_target,
    claimed,
    publish_once,
    sweep_temporaries,
    sync_folder,
    working_folder,
    write_atomically,
)

LACKING = [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY]


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is the first that meets the file system."""
    monkeypatch.setattr(files, "_warned", set())


def refusing(number: int) -> Callable[..., None]:
    """A call of the system that always ends in the error `number`."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def folders_refuse(number: int) -> Callable[[int], None]:
    """An fsync that syncs files and no folders."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    return fsync


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new/folder/x.bin"
    write_atomically(path, b"old", durable=durable)
    write_atomically(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.bin"]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_writer(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_atomically, publish_once])
def test_a_full_disk_raises_disk_error_and_leaves_nothing(tmp_path: Path, write: object) -> None:
    path = tmp_path / "x"
    with largest_file(4096), pytest.raises(DiskError, match=r"x: File too large"):
        write(path, bytes(100_000))  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_to_sync_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file/x", b"")


def odd_target(path: Path, kind: str) -> None:
    """Something at `path` that is no regular file."""
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(path.with_name("fifo"))
        path.symlink_to("fifo")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to a fifo", "socket"])
@pytest.mark.parametrize("refuse", [check_file_target, lambda path: write_atomically(path, b"x")])
def test_what_is_no_regular_file_is_refused_by_name(refuse: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    odd_target(path, kind)
    before = path.lstat()
    with pytest.raises(OSError, match="is a directory" if kind == "directory" else "is no regular file") as caught:
        refuse(path)
    assert caught.value.filename == str(path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_error_names_the_target_and_not_its_temporary(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    with pytest.raises(OSError, match="name too long") as caught:
        write_atomically(path, b"x")
    assert caught.value.filename == str(path)


def test_targets_are_checked_without_making_anything(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    check_file_target(file)
    check_file_target(tmp_path / "new/deep/x")
    check_folder_target(tmp_path)
    check_folder_target(tmp_path / "new/deep")
    for check, target in (
        (check_file_target, file / "x/y"),
        (check_folder_target, file),
        (check_folder_target, file / "x"),
    ):
        with pytest.raises(NotADirectoryError) as caught:
            check(target)
        assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_takes_no_entries_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK | os.X_OK)  # root may write anywhere
    with pytest.raises(PermissionError) as caught:
        check_folder_target(tmp_path / "new")
    assert caught.value.filename == str(tmp_path)


def test_of_many_publishers_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    contents = [bytes([number]) * 10_000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: publish_once(path, data), contents))
    assert won.count(True) == 1
    assert path.read_bytes() == contents[won.index(True)]
    assert list(tmp_path.iterdir()) == [path]


def test_publishing_works_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.warns(UnprotectedWarning, match="has no hard links"):
        assert publish_once(tmp_path / "x", b"first")
    assert not publish_once(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"


def test_a_sweep_removes_only_files_of_dead_processes(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    dead, held, other = tmp_path / "deep/.tmp-x-1-a", tmp_path / ".tmp-x-2-b", tmp_path / "x"
    for path in (dead, held, other):
        path.write_bytes(b"")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep_temporaries(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [held.name, "x"]


def test_a_file_being_written_survives_a_sweep(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "x") as file:
        file.write(b"data")
        assert sweep_temporaries(tmp_path) == 0
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize("number", [*LACKING, errno.EBADF, errno.EACCES])
@pytest.mark.parametrize("write", [write_atomically, publish_once])
def test_a_folder_that_cannot_be_synced_is_used(
    write: Callable[[Path, bytes], object], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", folders_refuse(number))
    with pytest.warns(UnprotectedWarning, match=f"^{tmp_path}: its file system cannot sync"):
        write(tmp_path / "x", b"data")
    write(tmp_path / "deeper/y", b"data")  # a second warning would be an error
    assert (tmp_path / "x").read_bytes() == (tmp_path / "deeper/y").read_bytes() == b"data"


@pytest.mark.parametrize("number", LACKING)
def test_a_file_that_cannot_be_synced_is_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.warns(UnprotectedWarning, match="cannot sync"):
        write_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("write", [write_atomically, publish_once])
def test_a_folder_whose_disk_fails_is_an_error(
    write: Callable[[Path, bytes], object], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", folders_refuse(number))
    with pytest.raises(DiskError, match=str(tmp_path / "x")):
        write(tmp_path / "x", b"data")
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        sync_folder(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_folder_that_takes_files_but_no_listing_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def closed(path: object, *arguments: Any, **named: Any) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **named)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", closed)
    with pytest.warns(UnprotectedWarning, match="cannot sync"):
        write_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_link_that_the_disk_refuses_is_an_error(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusing(number))
    with pytest.raises((DiskError, OSError), match=os.strerror(number)):
        publish_once(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_twice(source: Path, target: Path) -> None:  # as NFS repeats a call
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    assert publish_once(tmp_path / "x", b"data")
    assert not publish_once(tmp_path / "x", b"other")


@pytest.mark.parametrize("number", [*LACKING, errno.ENOLCK, errno.EBADF])
def test_a_file_system_without_locks_is_used_with_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".tmp-left").touch()
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with ExitStack() as stack:
        with pytest.warns(UnprotectedWarning, match="has no file locks"):
            stack.enter_context(claimed(tmp_path / ".lock"))
        write_atomically(tmp_path / "x", b"data")
        assert sweep_temporaries(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".tmp-left", "x"]


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_only_a_held_lock_means_another_process(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(BlockingIOError), claimed(tmp_path / ".lock"):
        pass
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught, claimed(tmp_path / ".lock"):
        pass
    assert caught.value.filename == str(tmp_path / ".lock")
    assert not isinstance(caught.value, BlockingIOError)


def test_a_sweep_locks_where_locks_need_a_writable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".tmp-left").touch()
    real = fcntl.flock

    def flock(file: IO[bytes], operation: int) -> None:  # as NFS, which turns it into a lock of bytes for writing
        if not file.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert sweep_temporaries(tmp_path) == 1


def test_a_rename_that_fails_names_the_target(tmp_path: Path) -> None:

    def write() -> None:
        with atomic_writer(tmp_path / "x"):
            (tmp_path / "x").mkdir()

    with pytest.raises(OSError, match="directory") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "x")


def test_a_local_disk_gets_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with claimed(tmp_path / ".lock"):
            write_atomically(tmp_path / "x", b"data")
            publish_once(tmp_path / "y", b"data")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("whole")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "whole"
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "none") as folder:
        folder.write_text("fails when half is there")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("whole")
    for name in ("out", "out/a"):
        with pytest.raises(FileExistsError, match="expected a new name"), atomic_folder(tmp_path / name):
            pass
    assert (tmp_path / "out" / "a").read_text() == "whole"


def test_folders_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    (tmp_path / ".tmp-out-1-dead").mkdir()
    (tmp_path / ".tmp-out-1-dead" / "a").write_text("half")
    (tmp_path / ".tmp-outer-1-dead").mkdir()
    with atomic_folder(tmp_path / "out") as first, atomic_folder(tmp_path / "out"):
        assert first.is_dir()
        assert not (tmp_path / ".tmp-out-1-dead").exists()
        assert (tmp_path / ".tmp-outer-1-dead").exists()


def test_a_working_folder_leaves_nothing_and_removes_dead_ones(tmp_path: Path) -> None:
    (tmp_path / ".tmp-work-1-dead").mkdir()
    (tmp_path / ".tmp-work-1-dead/file").write_bytes(b"left by a kill")
    (tmp_path / "mine").mkdir()
    with working_folder(tmp_path, "work") as folder, working_folder(tmp_path, "work") as other:
        (folder / "file").write_bytes(b"x")
        assert folder != other
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, other.name, "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_swept_before_its_lock_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []
    lock_file = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if not swept:  # another process comes right here
            (made,) = tmp_path.iterdir()
            swept.append(made.name)
            made.rmdir()
        lock_file(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with working_folder(tmp_path, "work") as folder:
        assert folder.is_dir()
        assert folder.name not in swept
