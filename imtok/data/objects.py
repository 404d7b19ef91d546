"""Objects of S3 and Google Cloud Storage: written whole, created once, and replaced only where nobody else did.

A store has no links and no locks. A put with a condition takes their place: S3 compares the tag of the object's
content (`If-None-Match: *`, `If-Match`), Google the number of its version (`ifGenerationMatch`).
"""

from __future__ import annotations

from collections.abc import Callable
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

    def begin(self, files: Any, path: str) -> Upload | None:
        """Begin to write an object in parts; None where the store's way to do that is not used."""

    def read(self, files: Any, path: str) -> tuple[bytes, str]:
        """Read an object and its tag in one request."""


class Upload(Protocol):
    """An object that is written in parts, which nobody sees before the end."""

    def add(self, data: bytes) -> None:
        """Send the next part, of 5 MiB at least unless it is the last one."""

    def finish(self, tag: str | None) -> str:
        """Make the object of the parts and return its tag; `tag` is a condition as that of `put`."""

    def abort(self) -> None:
        """Drop the parts."""


class _S3:
    def put(self, files: Any, path: str, data: bytes, tag: str | None) -> str:
        return str(files.call_s3("put_object", **_place(path), Body=data, **_condition(tag))["ETag"])

    def begin(self, files: Any, path: str) -> Upload:
        return _S3Upload(files, path)

    def read(self, files: Any, path: str) -> tuple[bytes, str]:
        bucket, key = _split(path)
        tag = files.call_s3("head_object", Bucket=bucket, Key=key)["ETag"]
        return files.cat_file(path), str(tag)


class _S3Upload:
    def __init__(self, files: Any, path: str) -> None:
        self._files, self._parts = files, list[dict[str, Any]]()
        place = _place(path)
        self._place = {**place, "UploadId": files.call_s3("create_multipart_upload", **place)["UploadId"]}

    def add(self, data: bytes) -> None:
        number = len(self._parts) + 1
        found = self._files.call_s3("upload_part", **self._place, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": found["ETag"]})

    def finish(self, tag: str | None) -> str:
        parts = {"Parts": self._parts}
        found = self._files.call_s3(
            "complete_multipart_upload", **self._place, MultipartUpload=parts, **_condition(tag)
        )
        return str(found["ETag"])

    def abort(self) -> None:
        self._files.call_s3("abort_multipart_upload", **self._place)


class _Google:
    def put(self, files: Any, path: str, data: bytes, tag: str | None) -> str:
        bucket, key = _split(path)
        condition = {} if tag is None else {"ifGenerationMatch": tag or "0"}
        place = f"{files._location}/upload/storage/v1/b/{{}}/o"  # as gcsfs' own uploads have it
        found = files.call("POST", place, bucket, uploadType="media", name=key, data=data, json_out=True, **condition)
        return str(found["generation"])

    def begin(self, files: Any, path: str) -> None:
        """Return None: objects are put whole."""

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


def exchange(storage: RemoteStorage, address: str, data: bytes, tag: str | None) -> str | None:
    """Replace the object of this tag, and return the new one's; None where it is another by now. Raises as `create`.

    Without a tag any object is replaced, or none.
    """
    dialect = _DIALECTS[storage.scheme]
    return _exchanged(lambda: dialect.put(storage.files(), address, data, tag), tag)


def begin(storage: RemoteStorage, address: str) -> Upload | None:
    """Begin to write an object in parts, None where the store has no way to; its methods are for `attempted`.

    Raises RemoteError.
    """
    dialect = _DIALECTS[storage.scheme]
    return attempted(lambda: dialect.begin(storage.files(), address))


def finish(storage: RemoteStorage, address: str, upload: Upload, tag: str | None) -> str | None:
    """Make an object of its parts, and return its tag; None where the condition is not met. Raises as `create`."""
    try:
        return _exchanged(lambda: upload.finish(tag), tag)
    except RemoteError as error:
        # It was made by a request whose answer was lost, and that ended the upload.
        if error.missing and storage.kind(address) == "file":
            return None
        raise


def _exchanged(call: Callable[[], str], tag: str | None) -> str | None:
    try:
        return attempted(call)
    except RemoteError as error:
        if (tag is not None and error.status in _LOST) or (tag and error.missing):
            return None
        if tag is not None and error.status == HTTPStatus.NOT_IMPLEMENTED:
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


def _condition(tag: str | None) -> dict[str, str]:
    return {} if tag is None else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}


def _place(path: str) -> dict[str, str]:
    bucket, key = _split(path)
    return {"Bucket": bucket, "Key": key}


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key
