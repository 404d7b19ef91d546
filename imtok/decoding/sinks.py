"""Destinations of decoded images: a folder, or one tar whose bytes depend on the images alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from imtok.errors import TokensError
from imtok.files import atomic_writer, check_locks, local_path, write_atomically


class Sink(Protocol):
    """Takes image files by relative path."""

    def write(self, name: str, data: bytes) -> None:
        """Store one file."""


def is_tar(output: Path) -> bool:
    """Return whether `output` names a tar to write; every other name is a folder's."""
    return output.suffix.lower() == ".tar"


def check_sink(output: Path, *, overwrite: bool) -> None:
    """Raise TokensError where `output` is of the wrong kind, or is a tar that is there already and not to be replaced.

    A folder is looked at by `imtok.decoding.record`.
    """
    check_locks()
    if not is_tar(output):
        if output.exists() and not output.is_dir():
            raise TokensError(f"{output}: a file, expected a folder for the images or a name ending in .tar")
    elif output.is_dir():
        raise TokensError(f"{output}: a folder, expected a tar to write; give another name")
    elif output.exists() and not overwrite:
        raise TokensError(f"{output}: exists; give another name, or replace it with --overwrite (overwrite=True)")


@contextmanager
def open_sink(output: Path) -> Iterator[Sink]:
    """Open a sink for `output`; a tar appears when the block ends well."""
    if not is_tar(output):
        yield _FolderSink(output)
        return
    import webdataset  # a second to load, needed here only

    with atomic_writer(output) as file:
        # A fixed time, and the longer names of POSIX tars; webdataset's own choices would be now, and 100 bytes.
        writer = webdataset.TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT")
        try:
            yield _TarSink(writer)
        finally:
            writer.close()  # after an error too, or it would do so when it is collected; the file is then discarded


class _FolderSink:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        write_atomically(self._folder / local_path(name), data, durable=False)


class _TarSink:
    def __init__(self, writer: object) -> None:
        self._writer = writer

    def write(self, name: str, data: bytes) -> None:
        stem, _, suffix = name.rpartition(".")
        self._writer.write({"__key__": stem, suffix: data})  # type: ignore[attr-defined]
