"""Errors of remote storages in imtok's own words, from the types and codes of the libraries' errors.

The libraries' texts are never taken over: they hold URLs with their signatures.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_MISSING_KEYS = ("NoCredentials", "PartialCredentials", "TokenRetrieval", "DefaultCredentials", "LocalTokenNotFound")
_STALLS = ("Timeout",)  # in the names of all libraries' classes for it
_CUTS = ("ClientPayloadError", "IncompleteRead", "RemoteProtocolError", "ResponseStreamingError")
_NO_CONNECTION = (
    "ConnectionError",
    "ConnectError",
    "ClientConnect",
    "ClientOSError",
    "ServerDisconnected",
    "ReadError",
)


_TRY_AGAIN = "check the address and its server, then give the same command again"


class RemoteError(OSError):
    """A remote file that cannot be read; `permanent` says that another try would be in vain.

    `advice` says what a person may do about it, and `status` is the HTTP status of the answer, None without one.
    """

    def __init__(
        self, reason: str, *, permanent: bool = False, advice: str = _TRY_AGAIN, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.permanent, self.advice, self.status = reason, permanent, advice, status

    @property
    def missing(self) -> bool:
        """True where the server says that nothing has this address."""
        return self.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


def described(error: BaseException) -> RemoteError:
    """Describe an error of any library."""
    chain = list(_chain(error))
    names = " ".join(base.__name__ for one in chain for base in type(one).__mro__)
    if any(name in names for name in _CUTS):
        return RemoteError("the connection ended before the file did")
    if "HttpProcessingError" in names:  # aiohttp gives it the status 400, which no server said
        return RemoteError("its answer is no HTTP")
    status = next((status for one in chain if (status := _status(one)) is not None), None)
    if status is not None:
        return _of_status(status)
    if any(isinstance(one, FileNotFoundError) for one in chain):
        return _of_status(HTTPStatus.NOT_FOUND)
    if any(isinstance(one, PermissionError) for one in chain):
        return _of_status(HTTPStatus.FORBIDDEN)
    if any(isinstance(one, FileExistsError) for one in chain):  # gcsfs' word for a condition that does not hold
        return _of_status(HTTPStatus.PRECONDITION_FAILED)
    if any(name in names for name in _MISSING_KEYS):
        return RemoteError(
            "no credentials were found where its library looks for them",
            permanent=True,
            advice="set them in the environment or in that library's files",
        )
    # Before time-outs: a refused connection is an error of that family in some libraries.
    if any(isinstance(one, socket.gaierror) for one in chain):
        return RemoteError("the name of its host cannot be resolved")
    refused = any(getattr(one, "errno", None) == errno.ECONNREFUSED for one in chain)
    if refused or any(isinstance(one, ConnectionRefusedError) for one in chain):
        return RemoteError("the connection was refused")
    if any(isinstance(one, TimeoutError) for one in chain) or any(name in names for name in _STALLS):
        return RemoteError("no answer in time")
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return RemoteError("its certificate cannot be verified", permanent=True)
    if any(isinstance(one, ssl.SSLError) for one in chain):
        return RemoteError("no secure connection can be made", advice="check whether the address begins with http")
    if any(isinstance(one, ConnectionError) for one in chain) or any(name in names for name in _NO_CONNECTION):
        return RemoteError("the connection broke")
    number = getattr(error, "errno", None)
    known = f": {os.strerror(number)}" if isinstance(number, int) else ""
    return RemoteError(f"its library fails with {type(error).__name__}{known}")


def _of_status(status: int) -> RemoteError:
    """Describe the status of an answer."""
    words = {
        HTTPStatus.UNAUTHORIZED: "access needs credentials",
        HTTPStatus.FORBIDDEN: "access is refused",
        HTTPStatus.NOT_FOUND: "does not exist",
        HTTPStatus.GONE: "does not exist any more",
        HTTPStatus.TOO_MANY_REQUESTS: "the server wants fewer requests",
    }
    phrase = words.get(HTTPStatus(status)) if status in set(HTTPStatus) else None
    phrase = phrase or ("the server fails" if status >= 500 else "the server refuses the request")
    denied = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    missing = status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    return RemoteError(
        f"{phrase} (HTTP {int(status)})",
        permanent=status < 500 and status not in _PASSING,
        advice="check the address" if missing else "check the address and the credentials" if denied else _TRY_AGAIN,
        status=int(status),
    )


def _status(error: BaseException) -> int | None:
    """Find the status of an answer in the errors of aiohttp, botocore, gcsfs and huggingface_hub."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response if isinstance(response, int) else None
    code = getattr(error, "code", None) if type(error).__name__ == "HttpError" else None  # gcsfs', as text at times
    for value in (getattr(error, "status", None), code, getattr(response, "status_code", None)):
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__
