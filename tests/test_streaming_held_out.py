"""Images held out of a stream: whole shards of many, single images of few, the same whatever is read first."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import pictures_tar, write_tar

from imtok.data.collection import ImageCollection
from imtok.data.streaming.held_out import first_images, split_shards
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.source import ShardSource
from imtok.data.streaming.stream import ShardStream
from imtok.errors import SourceError
from imtok.joint_batch import JointBatch


def shards(folder: Path, count: int, images: int) -> ShardReader:
    """Shards of some pictures each."""
    folder.mkdir()
    for number in range(count):
        pictures_tar(folder / f"s-{number:02}.tar", [f"{number}-{index}.png" for index in range(images)])
    return ShardReader(find_shards([folder]))


def keys_of(source: ShardSource) -> list[str]:
    """The keys of all images of a source."""
    return [key for number in range(len(source.names)) for key, _ in source.read(number)]


def test_whole_shards_of_many_are_held_out(tmp_path: Path) -> None:
    reader = shards(tmp_path / "s", 12, 3)
    training, held_out = split_shards(reader, 0.25, 256)
    stems = {key.split("/")[0] for key in keys_of(training)}
    out = {key.split("/")[0] for key in held_out.keys}
    assert not stems & out
    assert stems | out == set(reader.shards.stems)
    assert 1 <= len(out) <= 6


def test_single_images_of_few_shards_are_held_out(tmp_path: Path) -> None:
    reader = shards(tmp_path / "s", 3, 10)
    training, held_out = split_shards(reader, 0.1, 256)
    expected = ImageCollection.open([tmp_path / "s"]).split(0.1)
    assert keys_of(training) == expected[0].keys
    assert held_out.keys == expected[1].keys
    assert held_out.fingerprint == expected[1].fingerprint


def test_of_few_images_the_first_by_position_is_held_out(tmp_path: Path) -> None:
    reader = shards(tmp_path / "s", 1, 4)
    training, held_out = split_shards(reader, 0.001, 256)
    expected = ImageCollection.open([tmp_path / "s"]).split(0.001)
    assert (keys_of(training), held_out.keys) == (expected[0].keys, expected[1].keys)


def test_a_shard_held_out_image_by_image_is_no_failure(tmp_path: Path) -> None:
    training, held_out = split_shards(shards(tmp_path / "s", 2, 1), 0.05, 256)
    joint = JointBatch(2)
    stream = ShardStream(
        training, width=1, size=16, crop=16, flip=False, seed=0, joint=joint, workers=1, max_shard_failures=0
    )
    assert len(held_out) == 1
    assert len(keys_of(training)) == 1
    assert len(list(stream.batches(0, 8))) == 4
    assert stream.failures == {}


@pytest.mark.parametrize("name", ["damaged", "without images"])
def test_a_failed_shard_of_validation_says_what_to_do(tmp_path: Path, name: str) -> None:
    reader = shards(tmp_path / "s", 4, 2)
    _, held_out = split_shards(reader, 0.25, 256)
    address = next(path for path in map(Path, reader.shards.addresses) if path.stem == held_out.keys[0].split("/")[0])
    write_tar(address, [("a.txt", b"words")])
    if name == "damaged":
        address.write_bytes(address.read_bytes()[:700])
        with pytest.raises(SourceError, match="held out for validation lie in it, so mend it"):
            split_shards(reader, 0.25, 256)
    else:
        assert len(split_shards(reader, 0.25, 256)[1]) == len(held_out) - 2


def test_nothing_is_held_out_on_request(tmp_path: Path) -> None:
    reader = shards(tmp_path / "s", 2, 2)
    training, held_out = split_shards(reader, 0, 256)
    assert (len(keys_of(training)), len(held_out)) == (4, 0)


@pytest.mark.parametrize(("most", "expected"), [(4, 4), (8, 4), (13, 7)])
def test_no_more_shards_are_read_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, expected: int
) -> None:
    reader, read = shards(tmp_path / "s", 9, 2), list[int]()
    images = reader.images
    monkeypatch.setattr(reader, "images", lambda number, stop: read.append(number) or images(number, stop))
    assert len(first_images(reader, most)) == most
    assert read == list(range(expected))
