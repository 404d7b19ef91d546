"""The cache of shards: bounded, whole files alone, shared without locks."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from imtok.data.streaming import cache as cache_module
from imtok.data.streaming.cache import ShardCache
from imtok.errors import DiskError

SECRET = "hunter2-secret"


def kept(cache: ShardCache, address: str) -> bytes | None:
    """The bytes that the cache has for an address."""
    opened = cache.open(address)
    if opened is None:
        return None
    with opened[0] as file:
        data = file.read()
    assert len(data) == opened[1]
    return data


def test_the_longest_unused_shards_make_room(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 250)
    for number in range(2):
        cache.put(f"s3://b/{number}.tar", bytes([number]) * 100)
        (newest,) = [path for path in cache.folder.iterdir() if path.read_bytes()[0] == number]
        os.utime(newest, (number, number))
    assert kept(cache, "s3://b/0.tar") == bytes(100)  # used again, so 1 is the one unused longest
    cache.put("s3://b/2.tar", b"2" * 100)
    assert [kept(cache, f"s3://b/{number}.tar") is not None for number in range(3)] == [True, False, True]
    cache.put("s3://b/3.tar", bytes(251))
    assert kept(cache, "s3://b/3.tar") is None
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 250


def test_names_of_the_cache_hold_no_secret(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    address = f"https://user:{SECRET}@h/x.tar?sig={SECRET}"
    cache.put(address, b"shard")
    assert kept(cache, address) == b"shard"
    assert kept(cache, "https://h/x.tar") is None  # another signature may be another file
    assert SECRET not in str(list(tmp_path.iterdir()))


def test_a_file_of_another_length_is_not_used(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    cache.put("s3://b/x.tar", b"shard")
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"sha")
    assert kept(cache, "s3://b/x.tar") is None
    assert not list(tmp_path.iterdir())


def test_an_open_shard_stays_readable_when_it_is_removed(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    cache.put("s3://b/x.tar", b"shard")
    opened = cache.open("s3://b/x.tar")
    assert opened is not None
    cache.drop("s3://b/x.tar")
    with opened[0] as file:
        assert file.read() == b"shard"


def test_processes_share_a_cache_that_is_too_small(tmp_path: Path) -> None:
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        cache = ShardCache(tmp_path, 350)
        for turn in range(60):
            number = (turn * 7 + seed) % 5
            data = kept(cache, f"s3://b/{number}.tar")
            if data is None:
                cache.put(f"s3://b/{number}.tar", bytes([number]) * 100)
            elif data != bytes([number]) * 100:
                wrong.append(data)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    cache = ShardCache(tmp_path, 350)
    cache.put("s3://b/last.tar", bytes(100))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 350


def test_a_full_disk_leaves_the_shard_out_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes, *, durable: bool = True) -> None:
        raise DiskError(path, "No space left on device", 28)

    monkeypatch.setattr(cache_module, "write_atomically", refuse)
    cache = ShardCache(tmp_path, 1000)
    cache.put("s3://b/x.tar", b"shard")
    assert kept(cache, "s3://b/x.tar") is None
    assert cache.refused is not None
    assert "No space left on device" in cache.refused
