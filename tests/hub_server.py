"""A stand-in for the Hugging Face Hub on 127.0.0.1: repositories of models that are read, made and committed to.

It speaks the part of the protocol that huggingface_hub uses without Xet: information, trees and files of a revision,
and commits of small files in the request and of large ones (`.safetensors`) through LFS.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_hunter2secret"


@dataclass
class Repository:
    """A repository: files of each commit, and commits of each branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """Add a commit with these files over those before, and return its name."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        text = f"{len(self.commits)} {branch} {sorted(files)}"
        oid = hashlib.sha1(text.encode() + b"".join(files.values())).hexdigest()
        self.commits[oid], self.branches[branch] = {**before, **files}, oid
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch or of a commit's name, None where there is none."""
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass
class Hub:
    """The state of the stand-in: what it holds, what it was asked, and how it fails."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # LFS files by their SHA-256
    requests: list[str] = field(default_factory=list)  # method and path
    headers: list[dict[str, str]] = field(default_factory=list)
    down: int = 0  # the status of every answer while it is above 0
    card_error: str = ""  # what the Hub finds wrong with the metadata of a card
    refuse: str = ""  # paths that match it fail with 403

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Add a repository with one commit."""
        repository = self.repositories[name] = Repository(**options)
        repository.commit(files)
        return repository


class _Failure(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        self.status, self.code, self.text = status, code, text


_MISSING = _Failure(404, "EntryNotFound", "Entry not found")
_NO_REPOSITORY = _Failure(401, "RepoNotFound", "Invalid username or password.")  # as the Hub answers to a stranger
_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REV = r"(?P<rev>[^/]+)"
_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(rf"/api/models/{_REPO}(?:/revision/{_REV})?"), "_info"),
    ("GET", re.compile(rf"/api/models/{_REPO}/tree/{_REV}(?:/.*)?"), "_tree"),
    ("GET", re.compile(rf"/{_REPO}/resolve/{_REV}/(?P<path>.+)"), "_file"),
    ("HEAD", re.compile(rf"/{_REPO}/resolve/{_REV}/(?P<path>.+)"), "_file"),
    ("POST", re.compile(r"/api/repos/create"), "_create"),
    ("POST", re.compile(r"/api/validate-yaml"), "_validate"),
    ("POST", re.compile(rf"/api/models/{_REPO}/branch/{_REV}"), "_branch"),
    ("POST", re.compile(rf"/api/models/{_REPO}/preupload/{_REV}"), "_preupload"),
    ("POST", re.compile(rf"/api/models/{_REPO}/commit/{_REV}"), "_commit"),
    ("POST", re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch"), "_lfs_batch"),
    ("PUT", re.compile(r"/lfs/(?P<oid>[0-9a-f]+)"), "_lfs_put"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        self.hub.headers.append(dict(self.headers))
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            try:
                if self.hub.down:
                    raise _Failure(self.hub.down, "", "down")
                if self.hub.refuse and re.search(self.hub.refuse, path):
                    raise _Failure(403, "", "no")
                for method, pattern, name in _ROUTES:
                    if method == self.command and (match := pattern.fullmatch(path)):
                        parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
                        call: Callable[..., None] = getattr(self, name)
                        call(**parts)
                        return
                raise _MISSING
            except _Failure as failure:
                headers = {"X-Error-Code": failure.code, "X-Error-Message": failure.text}
                self._answer(json.dumps({"error": failure.text}).encode(), status=failure.status, headers=headers)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  (the names that the library calls)

    def log_message(self, *args: object) -> None:
        """Print nothing."""

    def _answer(self, data: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _repository(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            raise _NO_REPOSITORY
        return repository

    def _at(self, name: str, revision: str) -> tuple[Repository, str]:
        repository = self._repository(name)
        commit = repository.resolve(revision or "main")
        if commit is None:
            raise _Failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _writer(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Failure(401, "", "Invalid credentials in Authorization header")

    def _info(self, repo: str, rev: str) -> None:
        repository, commit = self._at(repo, rev)
        names = sorted(repository.commits[commit])
        self._json(
            {
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": repository.private,
                "siblings": [{"rfilename": name} for name in names],
            }
        )

    def _tree(self, repo: str, rev: str) -> None:
        repository, commit = self._at(repo, rev)
        files = sorted(repository.commits[commit].items())
        self._json([{"type": "file", "oid": _blob(data), "size": len(data), "path": name} for name, data in files])

    def _file(self, repo: str, rev: str, path: str) -> None:
        repository, commit = self._at(repo, rev)
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Failure(403, "GatedRepo", "Access to model is restricted.")
        data = repository.commits[commit].get(path)
        if data is None:
            raise _MISSING
        self._answer(data, headers={"X-Repo-Commit": commit, "ETag": f'"{_blob(data)}"'})

    def _create(self) -> None:
        self._writer()
        wish = json.loads(self.body)
        name = f"{wish.get('organization') or 'me'}/{wish['name']}"
        if name in self.hub.repositories:
            said = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self._answer(json.dumps(said).encode(), status=409)
            return
        self.hub.repositories[name] = repository = Repository(
            private=bool(wish.get("private")) or wish.get("visibility") == "private"
        )
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
        self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _validate(self) -> None:
        if self.hub.card_error:
            self._answer(json.dumps({"errors": [{"message": self.hub.card_error}]}).encode(), status=400)
            return
        self._json({"errors": [], "warnings": []})

    def _branch(self, repo: str, rev: str) -> None:
        self._writer()
        repository = self._repository(repo)
        if rev in repository.branches:
            raise _Failure(409, "", "Reference already exists")
        repository.branches[rev] = repository.branches["main"]
        self._json({})

    def _preupload(self, repo: str, rev: str) -> None:
        self._writer()
        repository, commit = self._at(repo, rev)
        there = repository.commits[commit]
        modes = []
        for file in json.loads(self.body)["files"]:
            large, data = file["path"].endswith(".safetensors"), there.get(file["path"])
            oid = None if data is None else hashlib.sha256(data).hexdigest() if large else _blob(data)
            mode = "lfs" if large else "regular"
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": modes})

    def _lfs_batch(self, repo: str) -> None:  # noqa: ARG002  (every route passes its parts)
        self._writer()
        objects: list[dict[str, Any]] = []
        for item in json.loads(self.body)["objects"]:
            action = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}
            known = item["oid"] in self.hub.large
            objects.append({**item, **({} if known else {"actions": action})})
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Failure(400, "", "wrong content")
        self.hub.large[oid] = self.body
        self._json({})

    def _commit(self, repo: str, rev: str) -> None:
        self._writer()
        repository, _ = self._at(repo, rev)
        files: dict[str, bytes] = {}
        message = ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = repository.commit(files, rev, message)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})


def _blob(data: bytes) -> str:
    """The name of a file's content in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def hub_served() -> Iterator[Hub]:
    """Serve an empty Hub on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = hub  # type: ignore[attr-defined]
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(hub: Hub, cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub speak to the stand-in, with a cache of its own and without a token."""
    from huggingface_hub import constants, file_download, utils

    # The library reads its environment once, when it is imported.
    values: dict[str, object] = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": f"{cache}/no-token",
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
        if hasattr(file_download, name):  # older versions copy it
            monkeypatch.setattr(file_download, name, value)
    getattr(utils, "reset_sessions", lambda: None)()  # older versions keep in them whether they are offline
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what HF_HUB_OFFLINE sets; older versions keep it in their open sessions."""
    from huggingface_hub import constants, utils

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(utils, "reset_sessions", lambda: None)()
