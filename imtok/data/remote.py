"""Storages of other machines, read through fsspec: web servers, S3, Google Cloud Storage and the Hugging Face Hub.

Credentials come only from where the file systems of fsspec look: the environment, configuration files, roles of the
machine. Errors of these libraries often hold the whole URL with its password or signature. None of their texts
leaves this module; a `RemoteError` says in imtok's own words what happened.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote

from imtok.data.listing import Entry, Kind
from imtok.data.remote_errors import RemoteError, described
from imtok.errors import SourceError

CONNECT_SECONDS = 10.0  # until a connection stands
STALL_SECONDS = 30.0  # without one byte; a long transfer may take hours
BLOCK_BYTES = 2**23  # of one request, where a store is read by ranges

T = TypeVar("T")

_URL_SIGNS = "%/:=&?~#+!$,;'@()*[]"  # stay as they are in a URL, which may be signed


@dataclass(frozen=True)
class _Backend:
    """A file system of fsspec."""

    module: str
    name: str
    extra: str  # of imtok, with the package that it needs
    options: Callable[[], Mapping[str, Any]]
    streamed: Mapping[str, Any]  # options of `open` for reading a file once, from its beginning to its end
    silent: tuple[str, ...] = ()  # loggers of whole tracebacks and URLs; imtok says itself what failed


def _http_options() -> Mapping[str, Any]:
    # aiohttp ends every transfer after five minutes by default. A compressed transfer would hide the true length.
    return {
        "client_kwargs": {"timeout": _aiohttp_timeout(), "headers": {"Accept-Encoding": "identity"}},
        "encoded": True,
    }


def _aiohttp_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)


_HTTP = _Backend(
    "fsspec.implementations.http",
    "HTTPFileSystem",
    "http",
    _http_options,
    {"block_size": 0, "size": 1},  # one request and no look before it: some signatures are for GET alone
)
_BACKENDS = {
    "http": _HTTP,
    "https": _HTTP,
    "s3": _Backend(
        "s3fs",
        "S3FileSystem",
        "s3",
        lambda: {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS}},
        {"block_size": BLOCK_BYTES, "cache_type": "readahead"},
    ),
    "gs": _Backend(
        "gcsfs",
        "GCSFileSystem",
        "gs",
        lambda: {"session_kwargs": {"timeout": _aiohttp_timeout()}},
        {"block_size": BLOCK_BYTES, "cache_type": "readahead"},
        ("gcsfs",),
    ),
    "hf": _Backend(
        "huggingface_hub",
        "HfFileSystem",
        "hf",
        dict,
        {"block_size": 0, "cache_type": "none"},
        ("huggingface_hub.utils._http",),
    ),
}


class RemoteStorage:
    """The files of one scheme. Methods raise RemoteError, an OSError, without any secret of the address."""

    def __init__(self, scheme: str) -> None:
        self.scheme, self._backend = scheme, _BACKENDS[scheme]
        self._file_system: Any = None
        self._process = 0  # that made the file system, which serves no process forked from it
        self._lock = Lock()

    def kind(self, address: str) -> Kind | None:
        """Return whether an address is a folder or a file; None where nothing has this address."""

        def found() -> Kind | None:
            try:
                return "folder" if self.files().info(_path(address))["type"] == "directory" else "file"
            except FileNotFoundError:
                return None

        return attempted(found)

    def look(self, address: str) -> Entry:
        """Return kind and size by one request; the size is None where the server does not state it."""
        return self._entry(attempted(lambda: self.files().info(_path(address))))._replace(address=address)

    def glob(self, pattern: str) -> Sequence[Entry]:
        """List what matches a pattern with `*`, where `**` crosses folders."""
        return [self._entry(line) for line in attempted(lambda: self.files().glob(pattern, detail=True)).values()]

    def list(self, folder: str) -> Sequence[Entry]:
        """List one folder."""
        return [self._entry(line) for line in attempted(lambda: self.files().ls(_path(folder), detail=True))]

    def find(self, folder: str, suffix: str) -> Sequence[Entry]:
        """List the files below a folder whose names end in `suffix`, by few requests."""
        lines = attempted(lambda: self.files().find(_path(folder), detail=True).values())
        return [entry for entry in map(self._entry, lines) if entry.name.lower().endswith(suffix)]

    def size(self, address: str) -> int:
        """Return the size of a file in bytes."""
        size = attempted(lambda: self.files().size(_path(address)))
        if size is None:
            raise RemoteError("its server does not say how long it is")
        return int(size)

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:
        """Read `size` bytes of a file from `offset` on; -1 reads to the end."""
        start, end = offset if offset or size >= 0 else None, None if size < 0 else offset + size
        return cast(bytes, attempted(lambda: self.files().cat_file(_path(address), start=start, end=end)))

    def open(self, address: str) -> BinaryIO:
        """Open a file as a stream that can seek."""
        return cast(BinaryIO, attempted(lambda: self.files().open(_path(address), "rb", block_size=BLOCK_BYTES)))

    def resolve(self, address: str) -> str:
        """Return the address: a store has one for each file."""
        return address

    @contextmanager
    def chunks(self, address: str) -> Iterator[Chunks]:
        """Open a file to be read once from its beginning to its end."""
        file = attempted(lambda: self.files().open(_path(address), "rb", **self._backend.streamed))
        try:
            yield Chunks(file)
        finally:
            attempted(file.close)

    def files(self) -> Any:
        """Return the file system of fsspec, one for all threads; `attempted` turns its errors into RemoteError."""
        with self._lock:
            if self._file_system is None or self._process != os.getpid():
                backend = self._backend
                try:
                    kind = getattr(importlib.import_module(backend.module), backend.name)
                    options = backend.options()
                except ImportError:
                    kind = None
                if kind is None:
                    raise SourceError(
                        f"{self.scheme}:// needs a package that is not installed; pip install 'imtok[{backend.extra}]'"
                    )
                for name in backend.silent:
                    logging.getLogger(name).addFilter(lambda _: False)
                self._process = os.getpid()
                self._file_system = kind(
                    skip_instance_cache=True, use_listings_cache=False, **self._configured(options)
                )
            return self._file_system

    def _configured(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Lay what a person has configured for fsspec over imtok's own options."""
        from fsspec.config import conf

        own = conf.get(self.scheme, {})
        return {
            name: {**value, **own.get(name, {})} if isinstance(value, dict) else value
            for name, value in options.items()
        }

    def _entry(self, line: Mapping[str, Any]) -> Entry:
        path = str(line["name"])
        address = path if "://" in path else f"{self.scheme}://{path}"
        kind: Kind = "folder" if line["type"] == "directory" else "file"
        return Entry(path.rstrip("/").rpartition("/")[2], address, kind, line.get("size"))


class Chunks:
    """A file that is read once from its beginning to its end."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; nothing at the end."""
        return cast(bytes, attempted(lambda: self._file.read(size)))

    @property
    def length(self) -> int | None:
        """Bytes of the whole file as its server states them; None where it does not, or after decompression."""
        response = getattr(self._file, "r", None) or getattr(self._file, "response", None)
        if response is None:
            size = self._file.size
            return None if size is None else int(size)
        headers = response.headers
        stated = headers.get("Content-Length")
        return int(stated) if stated and "Content-Encoding" not in headers else None


def _path(address: str) -> str:
    """Return the address as the file systems take it; a URL of the web is quoted only where it must be."""
    return quote(address, safe=_URL_SIGNS) if address.startswith("http") else address


def attempted(call: Callable[[], T]) -> T:
    """Return the result of a call of a library; its errors become RemoteError."""
    try:
        return call()
    except (RemoteError, SourceError):
        raise
    except Exception as error:
        found = described(error)
    raise found  # outside of `except`, or the library's error with its text would hang on it as its context
