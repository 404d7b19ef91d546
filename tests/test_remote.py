"""Storages of other machines, against servers on 127.0.0.1: S3 by moto, the Hub and the web by stand-ins."""

from __future__ import annotations

import importlib
import json
import logging
import ssl
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec.config
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from making import pictures_tar
from servers import Web, served

from imtok.data import remote
from imtok.data.collection import ImageCollection
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError, described
from imtok.data.storage import STORAGES
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure
from imtok.data.streaming.transfers import Patience
from imtok.errors import SourceError

QUICK = Patience(first_wait=0.01)
SECRET = "hunter2-secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of two pictures."""
    (tmp_path / "shards").mkdir()
    for number in range(3):
        pictures_tar(tmp_path / "shards" / f"s-{number}.tar", [f"{number}-{index}.png" for index in range(2)])
    return tmp_path / "shards"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with the shards below `sets/`, and credentials in the environment alone."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(STORAGES, "s3", RemoteStorage("s3"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    for path in folder.iterdir():
        client.upload_file(str(path), "pictures", f"sets/{path.name}")
    client.put_object(Bucket="pictures", Key="sets/notes.txt", Body=b"words")
    client.close()
    return "s3://pictures"


def streamed(*arguments: str) -> list[tuple[str, bytes]]:
    """All images of shards."""
    reader = ShardReader(find_shards(arguments), patience=QUICK)
    return [image for number in range(len(reader.names)) for image in reader.read(number)]


def test_shards_of_a_bucket_are_those_of_the_disk(bucket: str, folder: Path) -> None:
    assert streamed(f"{bucket}/sets/s-{{0..2}}.tar") == list(ImageCollection.open([folder]))


def test_a_folder_of_a_bucket_is_listed(bucket: str) -> None:
    assert find_shards([f"{bucket}/sets/"]).names == tuple(f"{bucket}/sets/s-{number}.tar" for number in range(3))
    with pytest.raises(SourceError, match=r"s3://pictures/none/: no \.tar lies below it"):
        find_shards([f"{bucket}/none/"])
    with pytest.raises(SourceError, match=r"s3://no-bucket/: cannot be listed \(does not exist \(HTTP 404\)\)"):
        find_shards(["s3://no-bucket/"])


@pytest.mark.parametrize("address", ["s3://pictures/sets/none.tar", "s3://no-bucket/x.tar"])
def test_a_missing_object_is_named(bucket: str, address: str) -> None:
    with pytest.raises(ShardFailure, match=rf"{address}: does not exist \(HTTP 404\), after 2 tries") as found:
        streamed(address)
    assert SECRET not in "".join(traceback.format_exception(found.value))


def test_a_store_without_credentials_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ShardFailure, match="no credentials were found where its library looks for them"):
        streamed(f"{bucket}/sets/s-0.tar")


def test_a_storage_of_a_bucket_has_all_methods(bucket: str, folder: Path) -> None:
    storage, address = STORAGES["s3"], f"{bucket}/sets/s-0.tar"
    data = (folder / "s-0.tar").read_bytes()
    kinds = [storage.kind(one) for one in (address, f"{bucket}/sets", f"{bucket}/none")]
    assert kinds == ["file", "folder", None]
    assert [entry.name for entry in storage.list(f"{bucket}/sets")] == ["notes.txt", "s-0.tar", "s-1.tar", "s-2.tar"]
    assert (storage.size(address), storage.read(address, 3, 9), storage.read(address)) == (len(data), data[3:12], data)
    with storage.open(address) as file:
        file.seek(100)
        assert file.read(50) == data[100:150]
    assert storage.resolve(address) == address


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A stand-in for the Hub with one data set; its address stands in fsspec's configuration, as a person writes it."""
    sizes = {f"data/{path.name}": path.stat().st_size for path in sorted(folder.iterdir())}
    tree = [{"type": "file", "oid": name, "size": size, "path": name} for name, size in sizes.items()]
    files = {f"/datasets/org/set/resolve/main/data/{path.name}": path.read_bytes() for path in folder.iterdir()}
    files["/api/datasets/org/set"] = json.dumps({"id": "org/set", "sha": "a" * 40, "siblings": []}).encode()
    for below in ("", "/data"):
        files[f"/api/datasets/org/set/tree/main{below}"] = json.dumps(tree).encode()
    monkeypatch.setitem(STORAGES, "hf", RemoteStorage("hf"))
    with served(files) as web:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": web.url, "token": False})
        yield web


@pytest.mark.parametrize("source", ["hf://datasets/org/set/data/s-{0..2}.tar", "hf://datasets/org/set/"])
def test_shards_of_the_hub_are_those_of_the_disk(hub: Web, folder: Path, source: str) -> None:
    assert streamed(source) == list(ImageCollection.open([folder]))


def test_a_cut_answer_of_the_hub_is_survived_and_named(hub: Web) -> None:
    hub.faults["/datasets/org/set/resolve/main/data/s-1.tar"] = ["cut"]
    assert len(streamed("hf://datasets/org/set/data/s-1.tar")) == 2
    hub.faults["/datasets/org/set/resolve/main/data/s-1.tar"] = ["cut"] * 20
    with pytest.raises(ShardFailure, match="the connection ended before the file did, after 5 tries"):
        streamed("hf://datasets/org/set/data/s-1.tar")


def test_google_storage_is_read_by_its_file_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file system stands in for gcsfs, whose own looks for a bucket's type need Google's servers."""
    made: list[dict[str, Any]] = []

    class Stand(MemoryFileSystem):
        protocol = "gs"
        store: dict[str, Any] = {}  # noqa: RUF012  (as its base has it)
        pseudo_dirs = [""]  # noqa: RUF012

        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return MemoryFileSystem._strip_protocol(path.replace("gs://", "memory://"))

    monkeypatch.setitem(sys.modules, "gcsfs", SimpleNamespace(GCSFileSystem=Stand))
    monkeypatch.setitem(STORAGES, "gs", RemoteStorage("gs"))
    for path in folder.iterdir():
        Stand().pipe_file(f"/bucket/{path.name}", path.read_bytes())
    assert streamed("gs://bucket/s-{0..2}.tar") == list(ImageCollection.open([folder]))
    assert made[-1]["session_kwargs"]["timeout"].total is None
    logging.getLogger("gcsfs").error("a traceback, for each try")
    assert "a traceback" not in caplog.text


@pytest.mark.parametrize(("scheme", "extra"), [("https", "http"), ("s3", "s3"), ("gs", "gs"), ("hf", "hf")])
def test_a_missing_package_is_named_with_its_command(scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SourceError) as found:
        RemoteStorage(scheme).size(f"{scheme}://bucket/x.tar")
    assert str(found.value) == f"{scheme}:// needs a package that is not installed; pip install 'imtok[{extra}]'"


def test_a_signed_url_is_asked_for_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORAGES, "http", RemoteStorage("http"))
    query = "X-Credential=id%2F2026%2Fs3&sig=a%2Bb%3D~c"
    with served({"/a b.tar": b"", "/a%20b.tar": (folder / "s-0.tar").read_bytes()}) as web:
        assert len(streamed(f"{web.url}/a b.tar?{query}")) == 2
        assert web.requests == [("GET", f"/a%20b.tar?{query}")]


def test_settings_of_fsspec_reach_the_web_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORAGES, "http", RemoteStorage("http"))
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"headers": {"X-Token": "mine"}}})
    with served({"/s-0.tar": (folder / "s-0.tar").read_bytes()}) as web:
        streamed(f"{web.url}/s-0.tar")
        assert web.headers[0]["X-Token"] == "mine"


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (FileNotFoundError(f"https://h/x?{SECRET}"), "does not exist (HTTP 404)", True),
        (PermissionError(f"https://h/x?{SECRET}"), "access is refused (HTTP 403)", True),
        (TimeoutError(f"https://h/x?{SECRET}"), "no answer in time", False),
        (ConnectionResetError(f"https://h/x?{SECRET}"), "the connection broke", False),
        (ssl.SSLError(1, f"https://h/x?{SECRET}"), "no secure connection can be made", False),
        (OSError(28, f"https://h/x?{SECRET}"), "its library fails with OSError: No space left on device", False),
        (KeyError(SECRET), "its library fails with KeyError", False),
    ],
)
def test_errors_of_libraries_keep_their_texts_to_themselves(error: Exception, reason: str, permanent: bool) -> None:
    found = described(error)
    assert (found.reason, found.permanent) == (reason, permanent)
    assert isinstance(found, RemoteError)


def test_every_scheme_has_a_storage() -> None:
    assert set(remote._BACKENDS) | {""} == set(STORAGES)
