"""Storages: the local one, and one of another scheme that is added here alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from making import contents, encoded, fill, picture, pictures_tar, tiny_tokenizer

from imtok.data.collection import ImageCollection
from imtok.data.sources import find_sources
from imtok.data.storage import STORAGES, Entry, Kind, LocalStorage, storage_of
from imtok.data.stream import TrainingStream
from imtok.encoding import encode
from imtok.errors import SourceError
from imtok.joint_batch import JointBatch
from imtok.tokens import open_tokens


class Memory:
    """Files in a dictionary, by their whole address such as `memory://photos/cat/a.png`."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def kind(self, address: str) -> Kind | None:
        if address in self.files:
            return "file"
        return "folder" if self.list(address) else None

    def list(self, folder: str) -> Sequence[Entry]:
        start = folder.rstrip("/") + "/"
        below = [address.removeprefix(start) for address in self.files if address.startswith(start)]
        folders = {name.split("/")[0] for name in below if "/" in name}
        files = [Entry(name, start + name, "file", self.size(start + name)) for name in below if "/" not in name]
        return files + [Entry(name, start + name, "folder") for name in folders]

    def size(self, address: str) -> int:
        return len(self.files[address])

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:
        if address not in self.files:
            raise FileNotFoundError(2, "No such file or directory", address)
        data = self.files[address][offset:]
        return data if size < 0 else data[:size]

    def open(self, address: str) -> BinaryIO:
        return io.BytesIO(self.read(address))

    def resolve(self, address: str) -> str:
        return address


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Memory:
    tar = pictures_tar(tmp_path / "shard.tar", ["t.png"]).read_bytes()
    photos = {f"memory://photos/{key}": encoded(picture(n)) for n, key in enumerate(["cat/a.png", "dog/b.png"])}
    storage = Memory({**photos, "memory://photos/dog/notes.txt": b"", "memory://tars/00000.tar": tar})
    monkeypatch.setitem(STORAGES, "memory", storage)
    return storage


def test_a_storage_from_outside_lists_folders_and_tars(memory: Memory) -> None:
    found = find_sources(["memory://photos", "memory://tars/{00000..00000}.tar"])
    assert [file.key for file in found.files] == ["cat/a.png", "dog/b.png"]
    assert [tar.name for tar in found.containers] == ["00000"]
    assert found.ignored == 1


def test_encode_reads_from_a_storage_from_outside(memory: Memory, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    for address, data in memory.files.items():  # the same files on this machine
        path = tmp_path / address.removeprefix("memory://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    encode(["memory://photos", "memory://tars"], tmp_path / "there", tokenizer)
    encode([tmp_path / "photos", tmp_path / "tars"], tmp_path / "here", tokenizer)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    tokens = open_tokens(tmp_path / "there")
    assert [(tokens.key(i), tokens.label(i)) for i in range(3)] == [
        ("photos/cat/a.png", None),
        ("photos/dog/b.png", None),
        ("t.png", None),
    ]


def test_training_reads_from_a_storage_from_outside(memory: Memory) -> None:
    images = ImageCollection.open(["memory://photos", "memory://tars/00000.tar"])
    assert images.keys == ["cat/a.png", "dog/b.png", "00000/t.png"]
    stream = TrainingStream(images, size=32, crop=16, flip=False, seed=0, joint=JointBatch(3), cache_bytes=0, workers=2)
    assert [batch.images.shape for batch in stream.batches(0, 6)] == [(3, 3, 16, 16)] * 2
    assert stream.unreadable == {}


def test_a_file_that_has_gone_is_named(memory: Memory) -> None:
    images = ImageCollection.open(["memory://photos"])
    del memory.files["memory://photos/cat/a.png"]
    with pytest.raises(SourceError, match=r"cat/a\.png: cannot be read \(No such file"):
        images.read(0)


@pytest.mark.parametrize("address", ["ftp://host/x.tar", "simplecache::s3://b/x.tar", "pipe:cat x.tar"])
def test_an_unknown_scheme_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(SourceError, match="nothing reads this; give a path, or a URL of http://, https://, s3://"):
        storage_of(address)


@pytest.mark.parametrize("address", ["s3://bucket/x.tar", "https://u:secret@host/x.tar?sig=secret"])
def test_a_list_of_images_refuses_remote_sources(address: str) -> None:
    with pytest.raises(
        SourceError, match="remote images are read by encode; train and eval read remote tars alone"
    ) as found:
        find_sources([address])
    assert "secret" not in str(found.value)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    fill(tmp_path / "a b", ["1.png"])
    assert find_sources([f"file://{tmp_path}/a%20b"]).files == find_sources([tmp_path / "a b"]).files


def test_the_local_storage_reads_whole_files_and_ranges(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    local, address = LocalStorage(), str(tmp_path / "x")
    assert (local.read(address), local.read(address, 3), local.read(address, 3, 4)) == (
        b"0123456789",
        b"3456789",
        b"3456",
    )
    assert local.read(address, 8, 9) == b"89"
    assert local.size(address) == 10
    with local.open(address) as file:
        file.seek(5)
        assert file.read(2) == b"56"


def test_the_local_storage_tells_folders_files_and_links_apart(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "broken").symlink_to("nowhere")
    local = LocalStorage()
    kinds = {entry.name: entry.kind for entry in local.list(str(tmp_path))}
    assert kinds == {"folder": "folder", "file": "file", "link": "folder", "broken": "other"}
    assert [local.kind(str(tmp_path / name)) for name in ("folder", "file", "gone")] == ["folder", "file", None]
    assert local.resolve(str(tmp_path / "link")) == str((tmp_path / "folder").resolve())
