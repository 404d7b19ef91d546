"""Objects of S3 and Google Cloud Storage: written whole, created once, and replaced only where nobody else did.

A store has no links and no locks. A put with a condition takes their place: S3 compares the tag of the object's
content (`If-None-Match: *`, `If-Match`), Google the number of its version (`ifGenerationMatch`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

from imtok.data.remote import RemoteStorage, attempted
from imtok.data.remote_errors import RemoteError

_LOST = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT}


class NoConditions(RemoteError):
    """The store knows no conditional puts."""


class _Dialect(Protocol):
    """Requests of one kind of store, by the file system of fsspec that holds its credentials."""

    def put(self, files: Any, path: str, data: bytes, tag: str | None) -> str:
        """Write an object and return its tag; `tag` is a condition: that of the object to replace, "" for none."""

    def read(self, files: Any, path: str) -> tuple[bytes, str]:
        """Read an object and its tag in one request."""


class _S3:
    def put(self, files: Any, path: str, data: bytes, tag: str | None) -> str:
        bucket, key = _split(path)
        condition = {} if tag is None else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        return str(files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)["ETag"])

    def read(self, files: Any, path: str) -> tuple[bytes, str]:
        bucket, key = _split(path)
        tag = files.call_s3("head_object", Bucket=bucket, Key=key)["ETag"]
        return files.cat_file(path), str(tag)


class _Google:
    def put(self, files: Any, path: str, data: bytes, tag: str | None) -> str:
        bucket, key = _split(path)
        condition = {} if tag is None else {"ifGenerationMatch": tag or "0"}
        place = f"{files._location}/upload/storage/v1/b/{{}}/o"  # as gcsfs' own uploads have it
        found = files.call("POST", place, bucket, uploadType="media", name=key, data=data, json_out=True, **condition)
        return str(found["generation"])

    def read(self, files: Any, path: str) -> tuple[bytes, str]:
        bucket, key = _split(path)
        headers, data = files.call("GET", "b/{}/o/{}", bucket, key, alt="media")
        return data, str(headers["x-goog-generation"])


_DIALECTS: dict[str, _Dialect] = {"s3": _S3(), "gs": _Google()}

WRITABLE_SCHEMES = tuple(_DIALECTS)


def put(storage: RemoteStorage, address: str, data: bytes) -> None:
    """Write an object, whatever is there; raises RemoteError."""
    dialect = _DIALECTS[storage.scheme]
    attempted(lambda: dialect.put(storage.files(), address, data, None))


def create(storage: RemoteStorage, address: str, data: bytes) -> str | None:
    """Write an object where none is, and return its tag; None where there is one. Of several callers one wins.

    Raises NoConditions where the store answers that it knows no conditions, RemoteError on other failures.
    """
    return exchange(storage, address, data, "")


def exchange(storage: RemoteStorage, address: str, data: bytes, tag: str) -> str | None:
    """Replace the object of this tag, and return the new one's; None where it is another by now. Raises as `create`."""
    dialect = _DIALECTS[storage.scheme]
    try:
        return attempted(lambda: dialect.put(storage.files(), address, data, tag))
    except RemoteError as error:
        if error.status in _LOST or (tag and error.missing):
            return None
        if error.status == HTTPStatus.NOT_IMPLEMENTED:
            raise NoConditions("it knows no conditional puts", permanent=True, status=error.status) from None
        raise


def read_tagged(storage: RemoteStorage, address: str) -> tuple[bytes, str]:
    """Read an object and its tag; raises RemoteError."""
    dialect = _DIALECTS[storage.scheme]
    return attempted(lambda: dialect.read(storage.files(), address))


def remove(storage: RemoteStorage, address: str) -> None:
    """Remove an object, if it is there; raises RemoteError."""
    try:
        attempted(lambda: storage.files().rm_file(address))
    except RemoteError as error:
        if not error.missing:
            raise


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key
