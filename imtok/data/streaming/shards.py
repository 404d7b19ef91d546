"""Shards of a list, each read whole from wherever it lies, with retries and, on request, from a local cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from threading import Lock
from typing import BinaryIO

from imtok.data.addresses import is_remote
from imtok.data.containers import HeldImage, SourceImage
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.storage import storage_of
from imtok.data.streaming.cache import ShardCache
from imtok.data.streaming.members import DamagedShard, ShardMembers, read_members
from imtok.data.streaming.shard_list import ShardList
from imtok.data.streaming.source import ShardFailure, never
from imtok.data.streaming.transfers import Patience, fetch, pause


class ShardReader:
    """A list of shards as a `ShardSource`.

    `unreadable` has the reasons of images that a shard names but does not hold, by key; `notes` what a person has to
    know about shards that were read. Both grow as shards are read.
    """

    def __init__(
        self,
        shards: ShardList,
        reading: Reading = DEFAULT_READING,
        cache: ShardCache | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.shards, self.reading = shards, reading
        self._cache, self._patience = cache, patience or Patience()
        self.unreadable: dict[str, str] = {}
        self.notes: dict[str, str] = {}  # by the names of shards
        self._lock = Lock()

    @property
    def names(self) -> Sequence[str]:
        """Redacted addresses of the shards, each once."""
        return self.shards.names

    def only(self, numbers: Sequence[int]) -> ShardReader:
        """Take the shards with these numbers; `unreadable` and `notes` are shared."""
        part = copy(self)
        part.shards = self.shards.only(numbers)
        return part

    def images(self, number: int, should_stop: Callable[[], bool] = never) -> list[SourceImage]:
        """Read one shard as images in memory, of which there may be none; raises as `read` does."""
        return [HeldImage(key, self.names[number], data) for key, data in self._images(number, should_stop)]

    def read(self, number: int, should_stop: Callable[[], bool] = never) -> Sequence[tuple[str, bytes]]:
        """Read the images of one whole shard: keys and encoded images.

        Raises ShardFailure after the last try and where the shard holds no image, and Interrupted soon after
        `should_stop` has said so.
        """
        images = self._images(number, should_stop)
        if not images:
            raise ShardFailure(self.names[number], "it holds no image")
        return images

    def _images(self, number: int, should_stop: Callable[[], bool]) -> list[tuple[str, bytes]]:
        name, stem = self.shards.names[number], self.shards.stems[number]
        members = self._read(self.shards.addresses[number], name, should_stop)
        with self._lock:
            self.unreadable |= {f"{stem}/{key}": reason for key, reason in members.lost.items()}
            if members.notes:
                self.notes[name] = "; ".join(members.notes)
        return [(f"{stem}/{key}", data) for key, data in members.images]

    def _read(self, address: str, name: str, should_stop: Callable[[], bool]) -> ShardMembers:
        """Read a shard by as many tries as its faults deserve; raises ShardFailure after the last."""
        patience, failed = self._patience, 0
        while True:
            try:
                return self._read_once(address, should_stop)
            except RemoteError as error:
                reason, advice = error.reason, error.advice
                tries = patience.tries_of_refusals if error.permanent else patience.tries
            except DamagedShard as error:
                reason, advice, tries = str(error), error.advice, patience.tries_of_damage
            except OSError as error:
                reason, advice = f"cannot be read ({error.strerror or error})", "check the file and its permissions"
                tries = patience.tries
            if not is_remote(address):
                tries = min(tries, 2)  # a disk says the same again, unless the file was just being written
            failed += 1
            if failed >= tries:
                raise ShardFailure(name, reason if failed == 1 else f"{reason}, after {failed} tries", advice)
            pause(patience.wait(failed), should_stop)

    def _read_once(self, address: str, should_stop: Callable[[], bool]) -> ShardMembers:
        with ExitStack() as stack:
            file, size, fetched = self._opened(address, should_stop)
            stack.callback(file.close)
            try:
                members = read_members(file, size, self.reading)
            except DamagedShard:
                if self._cache is not None and fetched is None:
                    self._cache.drop(address)
                raise
        if self._cache is not None and fetched is not None:  # whole, as is known only now
            self._cache.put(address, fetched)
            if self._cache.refused:
                self.notes["data.shard_cache"] = self._cache.refused
        return members

    def _opened(self, address: str, should_stop: Callable[[], bool]) -> tuple[BinaryIO, int, bytes | None]:
        """Open a shard that can seek; return its length, and its bytes where they came from another machine."""
        storage = storage_of(address)
        if not isinstance(storage, RemoteStorage):
            size = storage.size(address)
            return storage.open(address), size, None
        cached = self._cache.open(address) if self._cache is not None else None
        if cached is not None:
            return *cached, None
        data = fetch(storage, address, should_stop)
        return io.BytesIO(data), len(data), data
