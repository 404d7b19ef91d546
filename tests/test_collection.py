"""The list of all images of the sources: parts of it, and the memory it takes."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from making import encoded, fill, picture, pictures_tar

from imtok.data.collection import ImageCollection
from imtok.data.overlap import shared_images
from imtok.data.storage import STORAGES, Entry, Kind
from imtok.data.stream import TrainingStream
from imtok.errors import SourceError
from imtok.joint_batch import JointBatch

_MANY = 10_000
_BYTES_AN_IMAGE = 200


class Made:
    """A storage with one folder of made-up names."""

    def __init__(self, count: int) -> None:
        self.names = [f"image-of-the-set-{number:08d}.jpg" for number in range(count)]

    def kind(self, address: str) -> Kind | None:
        return "file" if address.endswith(".jpg") else "folder"

    def list(self, folder: str) -> Sequence[Entry]:
        return [Entry(name, f"{folder}/{name}", "file") for name in self.names]

    def size(self, address: str) -> int:
        return int(address[-12:-4]) + 100_000

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:  # noqa: ARG002
        return encoded(picture(0))

    def open(self, address: str) -> BinaryIO:
        return io.BytesIO(self.read(address))

    def resolve(self, address: str) -> str:
        return address


def allocated(source: Path | str) -> tuple[float, float]:
    """Bytes that a start of training keeps, and the most on its way, an image."""
    tracemalloc.start()
    try:
        images = ImageCollection.open([source])
        training, held_out = images.split(0.05)
        fingerprint = training.fingerprint
        stream = TrainingStream(
            training, size=8, crop=8, flip=True, seed=0, joint=JointBatch(2), cache_bytes=0, workers=1
        )
        shared = shared_images(training, held_out.subsample(4))
        batch = stream.batch(0)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(fingerprint) == 64
    assert batch.images.shape == (2, 3, 8, 8)
    assert len(shared) <= 4
    return kept / len(images), peak / len(images)


def test_an_image_of_a_folder_takes_less_than_200_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORAGES, "made", Made(40))
    allocated("made://folder")  # modules and buffers that the first call takes
    monkeypatch.setitem(STORAGES, "made", Made(_MANY))
    kept, peak = allocated("made://folder")
    assert kept < _BYTES_AN_IMAGE
    assert peak < 2 * _BYTES_AN_IMAGE  # the storage of this test lists entries that are objects


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_an_image_of_an_archive_takes_less_than_200_bytes(kind: str, tmp_path: Path) -> None:
    path, data = tmp_path / f"train.{kind}", encoded(picture(0))
    names = [f"{number:08d}.png" for number in range(_MANY // 10)]
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    elif kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(
            pa.table({"image": [{"bytes": data, "path": name} for name in names], "label": range(1000)}), path
        )
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, data)
    ImageCollection.open([path])  # modules and buffers that the first call takes
    tracemalloc.start()
    try:
        images = ImageCollection.open([path])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.read(len(names) - 1) == data
    assert kept / len(names) < _BYTES_AN_IMAGE


def test_parts_of_parts_are_parts_of_the_whole(tmp_path: Path) -> None:
    fill(tmp_path / "in", [f"{number}.png" for number in range(7)])
    pictures_tar(tmp_path / "t.tar", ["a.png", "b.png", "c.png"])
    images = ImageCollection.open([tmp_path / "in", tmp_path / "t.tar"])
    keys = [f"{number}.png" for number in range(7)] + ["t/a.png", "t/b.png", "t/c.png"]
    assert images.keys == keys
    some = images.only([9, 8, 1, 7])
    assert some.keys == ["t/c.png", "t/b.png", "1.png", "t/a.png"]
    assert some.only([3, 0]).keys == [some.key(3), some.key(0)] == ["t/a.png", "t/c.png"]
    assert [key for key, _ in some.subsample(2)] == ["t/c.png", "1.png"]
    assert some.sizes.tolist() == images.sizes[np.array([9, 8, 1, 7])].tolist()
    assert some.read(0) == images.read(9)


def test_the_first_damaged_tar_is_named_whatever_is_read_first(tmp_path: Path) -> None:
    for number in range(20):
        pictures_tar(tmp_path / f"{number:02d}.tar", ["a.png"])
    for number in (3, 15):
        path = tmp_path / f"{number:02d}.tar"
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SourceError, match=r"03\.tar: cut short"):
        ImageCollection.open([tmp_path])
