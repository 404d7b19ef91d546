"""Token folders on object stores, against moto's S3: the same files as on a disk, by conditional puts."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from making import contents, fill, tiny_tokenizer, token_folder
from object_stores import SECRET, new_bucket, objects_below, s3_server
from typer.testing import CliRunner

from imtok.cli import app
from imtok.data import objects
from imtok.data.remote_errors import RemoteError
from imtok.data.streaming.transfers import Patience
from imtok.encoding import encode
from imtok.errors import TokensError
from imtok.tokens import dataset, object_store, open_tokens, ranged, read_info, read_manifest, verify_tokens
from imtok.tokens.object_store import ObjectFile
from imtok.tokens.store import LocalStore, store_of


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and no long waits."""
    monkeypatch.setattr(object_store, "_patience", Patience(first_wait=0.001))
    return new_bucket(server, f"bucket-{uuid.uuid4().hex[:8]}", monkeypatch)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("t"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("photos"), [f"class{number % 2}/{number}.png" for number in range(8)])
    (folder / "class0" / "broken.png").write_bytes(b"broken")
    return folder


def truth(address: str) -> dict[str, bytes]:
    """All objects of a token folder outside its journal."""
    return {name: data for name, data in objects_below(address).items() if not name.startswith("journal/")}


def test_objects_are_the_files_of_a_local_folder(bucket: str, photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "local", tokenizer, unit_size=3)
    report = encode([photos], f"{bucket}/deep/tokens/", tokenizer, unit_size=3)
    assert report.complete
    assert truth(f"{bucket}/deep/tokens") == contents(tmp_path / "local")
    assert SECRET.encode() not in b"".join(objects_below(f"{bucket}/deep/tokens").values())


def test_an_encode_to_a_store_resumes_with_its_own_tokenizer(bucket: str, photos: Path, tokenizer: Path) -> None:
    encode([photos], f"{bucket}/t", tokenizer, unit_size=3, shard=(0, 2))
    with pytest.raises(TokensError, match=rf"{bucket}/t: begun with --unit-size 3, this call has 4"):
        encode([photos], f"{bucket}/t", unit_size=4)
    assert encode([photos], f"{bucket}/t").units_done == 1
    assert encode([photos], f"{bucket}/t").was_complete


def test_every_command_takes_the_address_of_a_store(bucket: str, photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    tokens = f"{bucket}/set"
    assert f"8 images in {tokens}" in run("encode", photos, "-o", tokens, "-t", tokenizer, "--unit-size", 4)
    assert f"{tokens}: sound, 8 images in 3 shards" in run("verify", tokens)
    assert "images: 8" in run("info", tokens)
    assert '"images":8' in run("stats", tokens, "--json", "--deep", "--images", photos)
    assert "8 images" in run("export", tokens, "--to", "npy", "-o", tmp_path / "npy")
    assert "3 of 3 units committed" in run("status", tokens)
    run("decode", tokens, "-o", tmp_path / "images")
    assert len(list((tmp_path / "images").rglob("*.png"))) == 8


def test_images_of_a_store_are_those_of_the_disk(bucket: str, photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "local", tokenizer, unit_size=3)
    encode([photos], f"{bucket}/t", tokenizer, unit_size=3)
    local, remote = open_tokens(tmp_path / "local"), pickle.loads(pickle.dumps(open_tokens(f"{bucket}/t")))
    assert len(remote) == 8
    for index in (7, 0, 4):
        assert remote[index][0] == local[index][0]
        assert remote[index][1].equal(local[index][1])
        assert remote.label(index) == local.label(index)
    assert read_info(f"{bucket}/t") == read_info(tmp_path / "local")
    assert read_manifest(f"{bucket}/t") == read_manifest(tmp_path / "local")
    assert repr(remote).startswith(f"<TokenDataset {bucket}/t, 8 images")
    with pytest.raises(TokensError, match="no folder of this machine"):
        _ = remote.folder


def test_images_of_a_long_shard_are_read_by_ranges(
    bucket: str, photos: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "WHOLE_BYTES", 0)
    monkeypatch.setattr(ranged, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(ObjectFile, "read_bytes", without(ObjectFile.read_bytes, ".safetensors"))
    for options in ({}, {"augment": "flip"}):
        name = f"t{len(options)}"
        encode([photos], tmp_path / name, tokenizer, unit_size=5, **options)
        address = f"{bucket}/{name}"
        for file in contents(tmp_path / name):
            store_of(address).replace(file, (tmp_path / name / file).read_bytes())
        local, remote = open_tokens(tmp_path / name), pickle.loads(pickle.dumps(open_tokens(address)))
        for index in range(len(local)):
            assert remote[index][0] == local[index][0]
            assert remote.all_codes(index).equal(local.all_codes(index))
            assert (remote.label(index), remote.source(index)) == (local.label(index), local.source(index))
    path = "shards/000/00000000.safetensors"
    store_of(address).replace(path, (tmp_path / name / path).read_bytes()[:300])
    with pytest.raises(TokensError, match=rf"{path}: damaged"):
        open_tokens(address)[0]


def without(real: Callable[..., bytes], suffix: str) -> Callable[..., bytes]:
    """A way to read files that are not of this suffix alone."""

    def read(file: ObjectFile) -> bytes:
        assert not file.name.endswith(suffix), file
        return real(file)

    return read


def test_damage_in_a_store_is_found_by_name(bucket: str, photos: Path, tokenizer: Path) -> None:
    encode([photos], f"{bucket}/t", tokenizer, unit_size=3)
    store = store_of(f"{bucket}/t")
    data = store.file("shards/000/00000001.safetensors").read_bytes()
    store.replace("shards/000/00000001.safetensors", data[:-1])
    store.replace("shards/000/strange.txt", b"")
    problems = verify_tokens(f"{bucket}/t").problems
    assert any(f"{bucket}/t/shards/000/00000001.safetensors: damaged" in problem for problem in problems)
    assert "shards/000/strange.txt: a file that nobody planned" in problems


def test_of_two_writers_of_an_object_the_first_wins(bucket: str) -> None:
    store = store_of(f"{bucket}/t")
    assert store.publish_once("a/b", b"first")
    assert not store.publish_once("a/b", b"second")
    storage = store.storage  # type: ignore[attr-defined]
    assert objects.create(storage, f"{bucket}/t/a/b", b"third") is None
    assert store.file("a/b").read_bytes() == b"first"


@pytest.mark.parametrize("other", [None, "first", "meanwhile"])
def test_a_long_object_is_written_once_in_parts(
    other: str | None, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imtok.tokens.object_store._PART_BYTES", 5 * 2**20)  # no store takes shorter ones
    pieces = [bytes([number]) * 3 * 2**20 for number in range(5)]
    store, kept = store_of(f"{bucket}/t"), b"".join(pieces)
    if other is not None:
        kept = b"other"
        store.replace("x", kept)
    if other == "meanwhile":
        monkeypatch.setattr(ObjectFile, "exists", lambda _: False)
    assert store.publish_once("x", iter(pieces)) == (other is None)
    assert store.file("x").read_bytes() == kept
    client = boto3.client("s3")
    assert not client.list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads")
    client.close()
    store.replace("x", iter(pieces[::-1]))
    assert store.file("x").read_bytes() == b"".join(pieces[::-1])


def test_an_object_that_fails_half_way_leaves_nothing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.tokens.object_store._PART_BYTES", 5 * 2**20)

    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 5 * 2**20] * 2
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store_of(f"{bucket}/t").publish_once("y", pieces())
    client = boto3.client("s3")
    assert not client.list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads")
    client.close()
    assert not store_of(f"{bucket}/t").file("y").exists()


def test_an_object_is_exchanged_by_its_tag_alone(bucket: str) -> None:
    store = store_of(f"{bucket}/t")
    storage, address = store.storage, f"{bucket}/t/x"  # type: ignore[attr-defined]
    assert objects.exchange(storage, address, b"none", '"0123"') is None
    assert (tag := objects.create(storage, address, b"one"))
    assert objects.read_tagged(storage, address) == (b"one", tag)
    assert (newer := objects.exchange(storage, address, b"two", tag))
    assert objects.exchange(storage, address, b"three", tag) is None
    objects.remove(storage, address)
    objects.remove(storage, address)
    assert objects.exchange(storage, address, b"four", newer) is None
    assert not store.file("x").exists()


def test_a_fault_of_the_network_is_tried_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(f"{bucket}/t")
    faults = [RemoteError("the connection broke"), RemoteError("no answer in time")]
    real = objects.exchange

    def failing(*arguments: Any) -> str | None:
        if faults:
            raise faults.pop()
        return real(*arguments)

    monkeypatch.setattr(objects, "exchange", failing)
    assert store.publish_once("x", b"data")
    faults += [RemoteError("the connection broke") for _ in range(5)]
    with pytest.raises(TokensError, match=r"t/y: cannot be written \(the connection broke, after 5 tries\)"):
        store.publish_once("y", b"data")


def test_what_cannot_be_written_or_is_missing_is_said(bucket: str, photos: Path, tokenizer: Path) -> None:
    with pytest.raises(TokensError, match=rf"{bucket}/none: no such folder"):
        open_tokens(f"{bucket}/none")
    with pytest.raises(TokensError, match="https:// is for reading only; give a path of this machine, or s3://"):
        encode([photos], "https://127.0.0.1:9/tokens", tokenizer)
    store_of(bucket).replace("other/file", b"")
    with pytest.raises(TokensError, match=rf"{bucket}/other: holds files and is no token folder"):
        encode([photos], f"{bucket}/other", tokenizer)
    with pytest.raises(TokensError, match=r"s3://no-such-bucket/t/imtok.json: cannot be written \(does not exist"):
        encode([photos], "s3://no-such-bucket/t", tokenizer)


def test_a_long_object_is_read_by_ranges(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_BLOCK_BYTES", 100)
    lines = [b"%05d\n" % number for number in range(200)]
    store_of(f"{bucket}/t").replace("long", b"".join(lines))
    with store_of(f"{bucket}/t").file("long").open("rb") as file:
        assert list(file) == lines


def test_a_path_names_a_local_store(tmp_path: Path) -> None:
    import numpy as np

    folder = token_folder(tmp_path / "t", [np.zeros((3, 2, 2), np.uint8)], 4)
    store = store_of(str(folder) + "/")
    assert store == LocalStore(folder)
    assert (str(store), store_of(store) is store) == (str(folder), True)
    assert open_tokens(store).folder == folder
