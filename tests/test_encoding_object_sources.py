"""Encoding from object stores and the Hub: folders, patterns, single objects, and labels beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec.config
import pytest
from making import contents, encoded, fill, picture, tiny_tokenizer, write_tar
from object_stores import SECRET, new_bucket, s3_server
from servers import served

from imtok.data import remote_files
from imtok.data.remote import RemoteStorage
from imtok.data.storage import STORAGES
from imtok.data.streaming.transfers import Patience
from imtok.encoding import encode
from imtok.errors import SourceError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(
    server: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """An empty bucket of the test's own."""
    monkeypatch.setattr(remote_files, "PATIENCE", Patience(first_wait=0.01))
    name = request.node.name.replace("_", "-").partition("[")[0][:40].rstrip("-")
    return new_bucket(server, f"{name}-{abs(hash(tmp_path)) % 10**6}", monkeypatch)


def upload(folder: Path, address: str) -> str:
    """Put the files of a folder below an address, which is returned."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
    client.close()
    return address


def shards(folder: Path) -> Path:
    """Two tars with pictures in class folders."""
    for number in range(2):
        members = [(f"{kind}/{number}-{i}.png", encoded(picture(9 * number + i))) for kind in "ab" for i in range(3)]
        folder.mkdir(exist_ok=True)
        write_tar(folder / f"s-{number}.tar", members)
    return folder


@pytest.mark.parametrize("source", ["{}/sets", "{}/sets/", "{}/sets/s-{{0..1}}.tar", "{}/s*/*.tar"])
def test_tars_of_a_bucket_give_the_tokens_of_the_disk(
    bucket: str, source: str, tokenizer: Path, tmp_path: Path
) -> None:
    upload(shards(tmp_path / "sets"), f"{bucket}/sets")
    remote = encode([source.format(bucket)], tmp_path / "remote", tokenizer)
    local = encode([tmp_path / "sets"], tmp_path / "local", tokenizer)
    assert (remote.labels, remote.dataset_id) == (local.labels, local.dataset_id)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    assert SECRET.encode() not in b"".join(contents(tmp_path / "remote").values())


def test_single_objects_give_the_tokens_of_a_folder(bucket: str, tokenizer: Path, tmp_path: Path) -> None:
    names = ["cat/1.png", "cat/deep/2.jpg", "dog/é 3.png", "dog/4+5.png", "loose.png", ".hidden/6.png", "cat.d/7.png"]
    folder = fill(tmp_path / "photos", names)
    (folder / "notes.txt").write_text("words")
    (folder / "cat/picture").write_bytes(encoded(picture(9)))  # told by its first bytes
    upload(folder, f"{bucket}/photos")
    encode([f"{bucket}/photos"], tmp_path / "remote", tokenizer, unit_size=3)
    encode([folder], tmp_path / "local", tokenizer, unit_size=3)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


@pytest.mark.parametrize("kind", ["cls", "json", "dataset.json"])
def test_labels_beside_objects_are_those_of_the_disk(bucket: str, kind: str, tokenizer: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", [f"{n}.png" for n in range(6)])
    if kind == "dataset.json":
        (folder / kind).write_text(json.dumps({"labels": [[f"{n}.png", n % 2] for n in range(6)]}))
    for n in range(6):
        if kind == "cls":
            (folder / f"{n}.cls").write_text(str(n % 2))
        elif kind == "json":
            (folder / f"{n}.json").write_text(json.dumps({"label": "ab"[n % 2]}))
    upload(folder, f"{bucket}/photos")
    remote = encode([f"{bucket}/photos/"], tmp_path / "remote", tokenizer)
    local = encode([folder], tmp_path / "local", tokenizer)
    assert remote.labels == local.labels
    assert remote.labels is not None
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_any_letter_of_a_name_is_kept(bucket: str, tokenizer: Path, tmp_path: Path) -> None:
    names = ["take #1.png", "take #2.png", "100%.png", "%41.png", "a+b.png", "{1,2}.png"]
    address = upload(fill(tmp_path / "photos", names), f"{bucket}/photos")
    (tmp_path / "list.txt").write_text("".join(f"{address}/{name}\t{name}\n" for name in names))
    encode([tmp_path / "photos"], tmp_path / "disk", tokenizer)
    encode([address], tmp_path / "folder", tokenizer)
    encode([tmp_path / "list.txt"], tmp_path / "list", tokenizer)
    assert contents(tmp_path / "folder") == contents(tmp_path / "disk")
    shard = "shards/000/00000000.safetensors"
    assert contents(tmp_path / "list")[shard] == contents(tmp_path / "disk")[shard]


def test_several_folders_lead_their_keys(bucket: str, tokenizer: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        upload(fill(tmp_path / name, ["x.png"]), f"{bucket}/{name}")
    encode([f"{bucket}/one", f"{bucket}/two/"], tmp_path / "remote", tokenizer)
    encode([tmp_path / "one", tmp_path / "two"], tmp_path / "local", tokenizer)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_an_object_that_vanishes_fails_its_unit(
    bucket: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(fill(tmp_path / "photos", ["1.png", "2.png"]), f"{bucket}/photos")
    read = RemoteStorage.read

    def vanished(self: RemoteStorage, address: str, offset: int = 0, size: int = -1) -> bytes:
        return read(self, address.replace("2.png", "none.png"), offset, size)

    monkeypatch.setattr(RemoteStorage, "read", vanished)
    report = encode([f"{bucket}/photos"], tmp_path / "tokens", tokenizer)
    assert [one.reason.partition(";")[0] for one in report.failed] == [
        f"{bucket}/photos/2.png: does not exist (HTTP 404), after 2 tries"
    ]


def test_tokens_go_from_a_bucket_to_a_bucket(bucket: str, tokenizer: Path, tmp_path: Path) -> None:
    upload(shards(tmp_path / "sets"), f"{bucket}/sets")
    report = encode([f"{bucket}/sets"], f"{bucket}/tokens", tokenizer)
    local = encode([tmp_path / "sets"], tmp_path / "local", tokenizer)
    assert (report.complete, report.dataset_id) == (True, local.dataset_id)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{}/none", "none: does not exist; check the address"),
        ("{}/none-*.tar", "nothing matches"),
        ("{}/words", "words: holds no images"),
        ("s3://no-such-bucket/x.tar", "does not exist"),
    ],
)
def test_what_a_bucket_does_not_hold_is_named(
    bucket: str, source: str, words: str, tokenizer: Path, tmp_path: Path
) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/notes.txt").write_text("words")
    upload(tmp_path / "words", f"{bucket}/words")
    with pytest.raises(SourceError, match=words):
        encode([source.format(bucket)], tmp_path / "tokens", tokenizer)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("source", ["data/s-{0..1}.tar", "data", "data/*.tar"])
def test_a_data_set_of_the_hub_is_encoded(
    source: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "sets")
    monkeypatch.setitem(STORAGES, "hf", RemoteStorage("hf"))
    tree = [
        {"type": "file", "oid": "1", "path": f"data/{path.name}", "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
    ]
    files = {f"/datasets/org/set/resolve/main/data/{path.name}": path.read_bytes() for path in folder.iterdir()}
    files["/api/datasets/org/set"] = files["/api/datasets/org/set/revision/main"] = json.dumps(
        {"id": "org/set", "sha": "1" * 40, "siblings": []}
    ).encode()
    files["/api/datasets/org/set/tree/main/data"] = json.dumps(tree).encode()
    folders = [{"type": "directory", "oid": "2", "path": "data"}]
    files["/api/datasets/org/set/tree/main"] = json.dumps(folders).encode()
    with served(files) as web:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": web.url, "token": False})
        encode([f"hf://datasets/org/set/{source}"], tmp_path / "remote", tokenizer)
    encode([folder], tmp_path / "local", tokenizer)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_a_folder_that_is_called_parquet_is_one(bucket: str, tokenizer: Path, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "set.parquet").mkdir()
    for part in range(2):
        rows = [{"bytes": encoded(picture(part)), "path": f"{part}.png"}]
        pq.write_table(pa.table({"image": rows}), tmp_path / f"set.parquet/part-{part}.parquet")
    upload(tmp_path / "set.parquet", f"{bucket}/set.parquet")
    encode([f"{bucket}/set.parquet"], tmp_path / "remote", tokenizer)
    encode([tmp_path / "set.parquet"], tmp_path / "local", tokenizer)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
