"""Whole files of other machines, fetched with patience: stalls end, faults are tried again, a stop is soon obeyed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import TypeVar

from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.streaming.source import STOPPED
from imtok.errors import Interrupted

T = TypeVar("T")

_CHUNK_BYTES = 2**20
_LOOKS_EVERY = 0.1  # seconds between looks at `should_stop`

_jitter = random.Random()  # its own: the state of all other draws stays as it is


@dataclass(frozen=True)
class Patience:
    """The number of tries, and the waits between them: each longer than the last, with jitter, up to a limit."""

    tries: int = 5
    tries_of_damage: int = 3  # where all bytes came and are no whole tar
    tries_of_refusals: int = 2  # where the server says that there is no such file, or no right to it
    first_wait: float = 1.0  # seconds
    factor: float = 3.0
    longest_wait: float = 30.0  # seconds

    def wait(self, failed: int) -> float:
        """Return the seconds before the next try, after `failed` of them; ranks that failed at once part again."""
        return min(self.first_wait * self.factor ** (failed - 1), self.longest_wait) * _jitter.uniform(0.5, 1.0)


def pause(seconds: float, should_stop: Callable[[], bool]) -> None:
    """Wait; raises Interrupted soon after `should_stop` has said so."""
    nothing = Event()
    while seconds > 0:
        if should_stop():
            raise Interrupted(STOPPED)
        nothing.wait(min(seconds, _LOOKS_EVERY))
        seconds -= _LOOKS_EVERY


def patiently(call: Callable[[], T], patience: Patience, should_stop: Callable[[], bool]) -> T:
    """Return what a call returns, tried again as its faults deserve.

    Raises the RemoteError of the last try, whose reason then says how many there were, and Interrupted as `pause` does.
    """
    failed = 0
    while True:
        try:
            return call()
        except RemoteError as error:
            last = error
        failed += 1
        if failed >= (patience.tries_of_refusals if last.permanent else patience.tries):
            break
        pause(patience.wait(failed), should_stop)
    reason = last.reason if failed == 1 else f"{last.reason}, after {failed} tries"
    raise RemoteError(reason, permanent=last.permanent, advice=last.advice, status=last.status)


def unless_missing(call: Callable[[], T]) -> T | None:
    """Return what a call returns, None where the server knows no such file: to ask again would be in vain."""
    try:
        return call()
    except RemoteError as error:
        if error.missing:
            return None
        raise


def fetch(storage: RemoteStorage, address: str, should_stop: Callable[[], bool]) -> bytes:
    """Fetch all bytes of a file once; raises RemoteError, also where they are not as many as its server states.

    A thread waits for the network, so that a stop need not wait for a server that says nothing. It is left behind
    then, and ends with its library's own time limit.
    """
    transfer = _Transfer(storage, address)
    thread = Thread(target=transfer.run, daemon=True)
    thread.start()
    while not transfer.done.wait(_LOOKS_EVERY):
        if should_stop():
            transfer.dropped = True
            raise Interrupted(STOPPED)
    thread.join()
    if transfer.error is not None:
        raise transfer.error
    return transfer.data


class _Transfer:
    """One try to fetch a file."""

    def __init__(self, storage: RemoteStorage, address: str) -> None:
        self._storage, self._address = storage, address
        self.data = b""
        self.error: Exception | None = None
        self.dropped = False
        self.done = Event()

    def run(self) -> None:
        """Fetch the file, unless it is dropped on the way."""
        try:
            self.data = self._received()
        except Exception as error:
            self.error = error
        finally:
            self.done.set()

    def _received(self) -> bytes:
        data = bytearray()
        receive(self._storage, self._address, data.extend, lambda: self.dropped)
        return bytes(data)


def receive(storage: RemoteStorage, address: str, take: Callable[[bytes], object], dropped: Callable[[], bool]) -> None:
    """Read a file once, chunk by chunk, until `dropped` says so.

    Raises RemoteError, also where its bytes are not as many as its server states.
    """
    received = 0
    with storage.chunks(address) as chunks:
        while not dropped() and (chunk := chunks.read(_CHUNK_BYTES)):
            take(chunk)
            received += len(chunk)
        length = chunks.length
    if length is not None and received != length and not dropped():
        raise RemoteError(f"{received} of {length} bytes came")
