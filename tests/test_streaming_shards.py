"""Shards read whole from local disks and web servers, through every fault that a server has."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import encoded, picture, pictures_tar
from servers import Web, served

import imtok.data.remote as remote
from imtok.data.collection import ImageCollection
from imtok.data.remote import RemoteStorage
from imtok.data.storage import STORAGES
from imtok.data.streaming.cache import ShardCache
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardFailure
from imtok.data.streaming.transfers import Patience
from imtok.errors import Interrupted

QUICK = Patience(first_wait=0.01)
SECRET = "hunter2-secret"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of three shards of four pictures."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        pictures_tar(folder / f"train-{number}.tar", [f"{number}{index}.png" for index in range(4)])
    return folder


@pytest.fixture
def web(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """The shards on a web server, and a file system that waits for a second at most."""
    monkeypatch.setattr(remote, "STALL_SECONDS", 0.5)
    monkeypatch.setitem(STORAGES, "http", RemoteStorage("http"))
    with served({f"/{path.name}": path.read_bytes() for path in shards.iterdir()}) as web:
        yield web


def test_local_shards_give_the_keys_and_bytes_of_the_index(shards: Path) -> None:
    reader = ShardReader(find_shards([shards]))
    streamed = [image for number in range(3) for image in reader.read(number)]
    assert streamed == list(ImageCollection.open([shards]))


def test_shards_of_a_web_server_are_those_of_the_disk(shards: Path, web: Web) -> None:
    reader = ShardReader(find_shards([f"{web.url}/train-{{0..2}}.tar"]))
    assert [reader.read(number) for number in range(3)] == [
        ShardReader(find_shards([shards])).read(number) for number in range(3)
    ]
    assert web.requests == [("GET", f"/train-{number}.tar") for number in range(3)]  # one request a shard


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", "the connection ended before the file did"),
        ("cut between members without length", "cut short between members: the end-of-archive blocks are missing"),
        ("stall", "no answer in time"),
        ("no answer", "no answer in time"),
        ("reset", "the connection"),
        ("status 500", r"the server fails \(HTTP 500\)"),
        ("status 503", r"the server fails \(HTTP 503\)"),
        ("status 429", r"the server wants fewer requests \(HTTP 429\)"),
        ("length too small", "cut short|its answer is no HTTP"),  # as the rest may come for the next answer
        ("length too large", "the connection ended before the file did"),
        ("chunked and cut", "the connection ended before the file did"),
        ("html", "not an uncompressed tar"),
        ("empty", r"the file is empty \(0 bytes\)"),
        ("damaged", "damaged"),
        ("gzip", "compressed with gzip"),
        ("status 403", r"access is refused \(HTTP 403\)"),
        ("status 404", r"does not exist \(HTTP 404\)"),
    ],
)
def test_a_passing_fault_is_survived_and_a_lasting_one_named(web: Web, fault: str, reason: str) -> None:
    shard = find_shards([f"{web.url}/train-1.tar?sig={SECRET}"])
    reader = ShardReader(shard, patience=QUICK)
    whole = ShardReader(find_shards([f"{web.url}/train-1.tar"])).read(0)
    web.faults["/train-1.tar"] = [fault]
    assert reader.read(0) == whole
    web.faults["/train-1.tar"] = [fault] * 5
    web.requests.clear()
    with pytest.raises(ShardFailure, match=f"{web.url}/train-1.tar: {reason}") as found:
        reader.read(0)
    tries = {"status 403": 2, "status 404": 2, "html": 3, "empty": 3, "damaged": 3, "gzip": 3}
    tries |= {"cut between members without length": 3}
    assert len(web.requests) == tries.get(fault, 5) or fault == "length too small"
    assert SECRET not in "".join(traceback.format_exception(found.value))
    assert found.value.__context__ is None


@pytest.mark.parametrize("answer", ["chunked", "no length"])
def test_a_shard_without_a_stated_length_is_read(web: Web, shards: Path, answer: str) -> None:
    web.faults["/train-2.tar"] = [answer]
    reader = ShardReader(find_shards([f"{web.url}/train-2.tar"]), patience=Patience(tries=1))
    assert reader.read(0) == ShardReader(find_shards([shards / "train-2.tar"])).read(0)


def test_a_slow_shard_is_no_stalled_one(shards: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    import servers

    def slowly(handler: object, data: bytes) -> None:
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.send_header("Content-Length", str(len(data)))  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        for part in range(8):  # longer than the time limit for a stall
            handler.wfile.write(data[part * len(data) // 8 : (part + 1) * len(data) // 8])  # type: ignore[attr-defined]
            time.sleep(0.1)

    monkeypatch.setitem(servers.FAULTS, "slowly", slowly)
    web.faults["/train-0.tar"] = ["slowly"]
    reader = ShardReader(find_shards([f"{web.url}/train-0.tar"]), patience=Patience(tries=1))
    assert len(reader.read(0)) == 4


@pytest.mark.parametrize("fault", ["stall", "status 503"])
def test_a_stop_is_obeyed_while_a_server_fails(web: Web, fault: str) -> None:
    web.faults["/train-0.tar"] = [fault] * 9
    began = time.monotonic()
    reader = ShardReader(find_shards([f"{web.url}/train-0.tar"]))
    with pytest.raises(Interrupted):
        reader.read(0, should_stop=lambda: time.monotonic() > began + 0.2)
    assert time.monotonic() - began < 0.6


def test_a_password_reaches_the_server_and_no_message(web: Web) -> None:
    address = web.url.replace("//", f"//user:{SECRET}@")
    shards = find_shards([f"{address}/train-{{0..3}}.tar"])
    reader = ShardReader(shards, patience=QUICK)
    assert len(reader.read(0)) == 4
    assert web.headers[0]["Authorization"].startswith("Basic ")
    with pytest.raises(ShardFailure) as found:
        reader.read(3)
    assert SECRET not in f"{shards!r} {found.value} {reader.names}"


def test_a_damaged_local_tar_is_named(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png"])
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ShardFailure, match=r"x\.tar: cut short inside a\.png, after 2 tries"):
        ShardReader(find_shards([path]), patience=QUICK).read(0)


def test_a_shard_that_has_gone_is_named(tmp_path: Path) -> None:
    path = pictures_tar(tmp_path / "x.tar", ["a.png"])
    reader = ShardReader(find_shards([path]), patience=QUICK)
    path.unlink()
    with pytest.raises(ShardFailure, match=r"x\.tar: cannot be read \(No such file or directory\)"):
        reader.read(0)


def test_the_cache_gives_a_shard_again_without_a_request(tmp_path: Path, web: Web) -> None:
    reader = ShardReader(
        find_shards([f"{web.url}/train-{{0..2}}.tar?sig={SECRET}"]), cache=ShardCache(tmp_path / "cache", 2**30)
    )
    first = reader.read(1)
    web.files.clear()
    assert reader.read(1) == first
    assert SECRET not in str(list((tmp_path / "cache").iterdir()))


def test_a_damaged_file_of_the_cache_is_fetched_again(tmp_path: Path, web: Web) -> None:
    cache = ShardCache(tmp_path / "cache", 2**30)
    reader = ShardReader(find_shards([f"{web.url}/train-1.tar"]), cache=cache, patience=QUICK)
    first = reader.read(0)
    (kept,) = cache.folder.iterdir()
    kept.write_bytes(bytes(kept.stat().st_size))  # of the right length
    assert reader.read(0) == first
    kept.write_bytes(kept.read_bytes()[:100])
    assert reader.read(0) == first


def test_equal_names_of_different_folders_are_told_apart(tmp_path: Path, web: Web) -> None:
    (tmp_path / "a").mkdir()
    local = pictures_tar(tmp_path / "a" / "train-0.tar", ["x.png"])
    reader = ShardReader(find_shards([local, f"{web.url}/train-0.tar"]))
    keys = [key for number in range(2) for key, _ in reader.read(number)]
    assert keys[0] == "a-train-0/x.png"
    assert len(set(keys)) == 5


def test_a_picture_beside_texts_comes_alone(tmp_path: Path, web: Web) -> None:
    data = encoded(picture(1))
    from making import write_tar

    write_tar(tmp_path / "t.tar", [("./1.a.jpg", data), ("1.a.txt", b"x"), ("1.b.JPG", data), (".hidden.jpg", data)])
    assert [key for key, _ in ShardReader(find_shards([tmp_path / "t.tar"])).read(0)] == ["t/1.a.jpg", "t/1.b.JPG"]
