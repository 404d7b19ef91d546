"""Conditional puts to Google Cloud Storage, against a stand-in for its JSON interface on 127.0.0.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec.config
import pytest

from imtok.data import objects
from imtok.data.remote import RemoteStorage


class _Google(BaseHTTPRequestHandler):
    """Objects by name with the numbers of their versions."""

    stored: dict[str, tuple[bytes, int]]

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert parts.path == "/upload/storage/v1/b/bucket/o"
        assert query["uploadType"] == "media"
        data = self.rfile.read(int(self.headers["Content-Length"]))
        _, generation = self.stored.get(query["name"], (b"", 0))
        if int(query.get("ifGenerationMatch", generation)) != generation:
            self._answer(412, b"{}")
            return
        self.stored[query["name"]] = data, generation + 1
        self._answer(200, json.dumps({"name": query["name"], "generation": str(generation + 1)}).encode())

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path.removeprefix("/storage/v1/b/bucket/o/"))
        if name not in self.stored:
            self._answer(404, b"{}")
            return
        data, generation = self.stored[name]
        self._answer(200, data, generation)

    def _answer(self, status: int, data: bytes, generation: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Goog-Generation", str(generation))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[bytes, int]]]:
    handler = type("Handler", (_Google,), {"stored": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": endpoint, "token": "anon"})
    yield handler.stored
    server.shutdown()
    server.server_close()
    thread.join()


def test_google_creates_and_exchanges_by_the_number_of_a_version(google: dict[str, tuple[bytes, int]]) -> None:
    storage, address = RemoteStorage("gs"), "gs://bucket/set/claims/7.json"
    assert objects.create(storage, address, b"one") == "1"
    assert objects.create(storage, address, b"other") is None
    assert objects.read_tagged(storage, address) == (b"one", "1")
    assert objects.exchange(storage, address, b"two", "1") == "2"
    assert objects.exchange(storage, address, b"late", "1") is None
    objects.put(storage, address, b"three")
    assert google == {"set/claims/7.json": (b"three", 3)}
