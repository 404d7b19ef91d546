"""Web servers on 127.0.0.1 for tests: one that serves files from memory and fails on purpose."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Web:
    """Files by path, and the faults of each path's next answers, one for each GET."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str]] = []  # method and path with its query
        self.headers: list[dict[str, str]] = []
        self.release = threading.Event()  # ends what stalls
        self.url = ""


FAULTS: dict[str, Callable[[Any, bytes], None]] = {}


def _fault(function: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
    FAULTS[function.__name__.removeprefix("_").replace("_", " ")] = function
    return function


def _answer(handler: Any, data: bytes, *, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


def _last_header(data: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[-1].offset


@_fault
def _cut(handler: Any, data: bytes) -> None:
    _answer(handler, data[: len(data) // 2], length=len(data))
    handler.close_connection = True


@_fault
def _cut_between_members_without_length(handler: Any, data: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(data[: _last_header(data)])
    handler.close_connection = True


@_fault
def _half_without_length(handler: Any, data: bytes) -> None:
    _no_length(handler, data[: len(data) // 2])


@_fault
def _stall(handler: Any, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:512])
    handler.wfile.flush()
    handler.server.web.release.wait(20)
    handler.close_connection = True


@_fault
def _reset(handler: Any, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:1000])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


@_fault
def _status_500(handler: Any, data: bytes) -> None:
    _answer(handler, b"broken", status=500)


@_fault
def _status_503(handler: Any, data: bytes) -> None:
    _answer(handler, b"busy", status=503)


@_fault
def _status_429(handler: Any, data: bytes) -> None:
    _answer(handler, b"slow down", status=429)


@_fault
def _status_403(handler: Any, data: bytes) -> None:
    _answer(handler, b"no", status=403)


@_fault
def _status_404(handler: Any, data: bytes) -> None:
    _answer(handler, b"none", status=404)


@_fault
def _length_too_small(handler: Any, data: bytes) -> None:
    _answer(handler, data, length=len(data) // 2)
    handler.close_connection = True


@_fault
def _length_too_large(handler: Any, data: bytes) -> None:
    _answer(handler, data, length=len(data) + 512)
    handler.close_connection = True


@_fault
def _html(handler: Any, data: bytes) -> None:
    _answer(handler, b"<!DOCTYPE html><html><body>Please log in.</body></html>" * 20)


@_fault
def _empty(handler: Any, data: bytes) -> None:
    _answer(handler, b"")


@_fault
def _damaged(handler: Any, data: bytes) -> None:
    header = _last_header(data)
    _answer(handler, data[:header] + b"y" * 512 + data[header + 512 :])


@_fault
def _gzip(handler: Any, data: bytes) -> None:
    _answer(handler, gzip.compress(data))


@_fault
def _no_answer(handler: Any, data: bytes) -> None:
    handler.server.web.release.wait(20)
    handler.close_connection = True


@_fault
def _chunked(handler: Any, data: bytes) -> None:  # no fault at all: a right answer without a length
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(data), 3000):
        piece = data[start : start + 3000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


@_fault
def _chunked_and_cut(handler: Any, data: bytes) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%s\r\n" % (2000, data[:2000]))
    handler.close_connection = True


@_fault
def _no_length(handler: Any, data: bytes) -> None:  # no fault: the end of the connection is that of the file
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web: Web = self.server.web  # type: ignore[attr-defined]
        web.requests.append((self.command, self.path))
        web.headers.append(dict(self.headers))
        path = self.path.partition("?")[0]
        faults = web.faults.get(path, [])
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            if faults and self.command == "GET" and (fault := faults.pop(0)) != "none":
                FAULTS[fault](self, web.files.get(path, b""))
            elif path in web.files:
                _answer(self, web.files[path])
            else:
                _answer(self, b"none", status=404)

    do_HEAD = do_GET  # noqa: N815  (the name that the library calls)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@contextmanager
def served(files: Mapping[str, bytes]) -> Iterator[Web]:
    """Serve files by their paths, such as `/a.tar`, on a free port of 127.0.0.1."""
    web = Web(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.web = web  # type: ignore[attr-defined]
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
