"""Claims: which process works on which unit, so that a free process takes a unit that nobody holds.

    journal/claims/00000012.json   unit 12 is in the hands of a process
    journal/failed/00000012.json   unit 12 could not be encoded, and why; gone once it is committed
    journal/shares/00001-of-00008  process 1 of 8 has begun

All of them are hints, for speed and for `imtok status`: a unit that is done twice gives the same shard. On one file
system a claim is a file that its process locks, and the system releases it when the process dies. `leases` has those
of object stores. Where neither works, each process does the units of its share alone.
"""

from __future__ import annotations

import os
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, TypeVar

from pydantic import ValidationError

from imtok.data.addresses import redacted
from imtok.encoding.share import Share
from imtok.errors import ImtokError, UnprotectedWarning
from imtok.files import lock
from imtok.tokens.folder import JOURNAL
from imtok.tokens.json_lines import JsonRecord, to_line
from imtok.tokens.store import LocalStore, Store

CLAIMS, FAILED, SHARES = f"{JOURNAL}/claims", f"{JOURNAL}/failed", f"{JOURNAL}/shares"


class Claim(JsonRecord):
    """The content of a claim."""

    unit: int
    host: str
    pid: int
    process: str  # such as "1 of 8", counted from 0
    since: str  # UTC, by the clock of its machine
    beat: int = 0  # renewals, on an object store
    lease: float | None = None  # seconds within which its holder renews it, on an object store
    held: bool | None = None  # by a living process, as `read_claims` finds it; None where that cannot be seen


class Failure(JsonRecord):
    """The content of a record of a failed unit."""

    unit: int
    name: str  # as the report has it
    reason: str
    host: str
    pid: int
    process: str
    since: str


def claim_of(unit: int, share: Share, lease: float | None = None) -> Claim:
    """Return a claim of this process that begins now."""
    return Claim(unit=unit, lease=lease, **_who(share))


def failure_of(unit: int, name: str, reason: str, share: Share) -> Failure:
    """Return the record of a unit that failed now in this process."""
    return Failure(unit=unit, name=redacted(name), reason=reason, **_who(share))


def _who(share: Share) -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": f"{share.process} of {share.processes}",
        "since": datetime.now(UTC).isoformat(),
    }


class Claims(ABC):
    """The claims of one process. A failure of a file or a store is no error: then units are dealt by number."""

    def __init__(self, store: Store, share: Share) -> None:
        self.store, self.share = store, share
        self.exclusive = True  # False where nothing keeps two processes from the same claim

    @abstractmethod
    def take(self, unit: int) -> bool:
        """Claim a unit; False where another process holds it. Without claims every unit may be had."""

    @abstractmethod
    def release(self, unit: int) -> None:
        """Give up a claim, if it is held."""

    @abstractmethod
    def close(self) -> None:
        """Give up all claims."""

    @abstractmethod
    def wait(self, units: Collection[int], should_stop: Callable[[], bool] | None = None) -> bool:
        """Wait until it is known which holders of some units live; True where a unit is free."""

    def deal_by_number(self, lack: str) -> None:
        """Take units of the own share alone from now on, and say so once."""
        if self.exclusive:
            self.exclusive = False
            warnings.warn(
                f"{self.store}: {lack}, so units are dealt by number and none is taken over; start each process with a "
                "--shard I/N of its own",
                UnprotectedWarning,
                stacklevel=2,
            )


class LocalClaims(Claims):
    """Claims as locked files."""

    def __init__(self, store: LocalStore, share: Share) -> None:
        super().__init__(store, share)
        self._folder = store.file(CLAIMS)
        self._held: dict[int, IO[bytes]] = {}

    def take(self, unit: int) -> bool:
        """Claim a unit by a lock on its file, which ends with this process."""
        path = self._folder / _name(unit)
        while self.exclusive:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                file = path.open("ab")
            except OSError as error:
                self.deal_by_number(f"claims cannot be written ({error.strerror or error})")
                return True
            try:
                locked = lock(file, wait=False)
            except BlockingIOError:
                file.close()
                return False
            except OSError:
                locked = False
            if not locked:
                file.close()
                self.deal_by_number("its file system has no file locks")
                return True
            if _is_at(file, path):  # or another process has removed it between opening and locking
                self._held[unit] = file
                with suppress(OSError):  # a claim without content is one all the same
                    file.truncate(0)
                    file.write(_to_bytes(claim_of(unit, self.share)))
                    file.flush()
                return True
            file.close()
        return True

    def release(self, unit: int) -> None:
        """Remove the file, then the lock."""
        file = self._held.pop(unit, None)
        if file is not None:
            with suppress(OSError):
                (self._folder / _name(unit)).unlink()
            with suppress(OSError):
                file.close()

    def wait(self, units: Collection[int], should_stop: Callable[[], bool] | None = None) -> bool:
        """Look whether a unit is free: the locks of the dead are gone, so nobody waits."""
        del should_stop
        return any(_held(self.store, f"{CLAIMS}/{_name(unit)}") is not True for unit in units)

    def close(self) -> None:
        """Give up all claims."""
        for unit in list(self._held):
            self.release(unit)


def _is_at(file: IO[bytes], path: os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))  # noqa: PTH116  (beside fstat)
    except OSError:
        return False


def begin_share(store: Store, share: Share) -> None:
    """Record that this process has begun its share, so that others may help with it."""
    with suppress(OSError, ImtokError):
        name = f"{SHARES}/{share.name()}"
        if not store.file(name).exists():
            store.replace(name, b"")


def begun_shares(store: Store, share: Share) -> set[int]:
    """Return the numbers of the processes, of as many as there are in this job, that have begun."""
    names = set(store.names(SHARES))
    return {number for number in range(share.processes) if f"{SHARES}/{share.name(number)}" in names}


def record_failure(store: Store, failure: Failure) -> None:
    """Leave a record of a failed unit."""
    with suppress(OSError, ImtokError):
        store.replace(f"{FAILED}/{_name(failure.unit)}", _to_bytes(failure))


def clear_failure(store: Store, unit: int) -> None:
    """Remove the record of a unit that is committed now."""
    with suppress(OSError, ImtokError):
        store.remove(f"{FAILED}/{_name(unit)}")


def clear_claims(store: Store) -> None:
    """Remove what dead processes left, of a folder whose units are all committed."""
    for name in list(store.names(CLAIMS)):
        if _held(store, name) is not True:
            with suppress(OSError, ImtokError):
                store.remove(name)


def read_failures(store: Store) -> list[Failure]:
    """Read the records of failed units, by unit; those that are damaged are left out."""
    return sorted((record for _, record in _records(store, FAILED, Failure)), key=lambda record: record.unit)


def read_claims(store: Store) -> list[Claim]:
    """Read all claims, by unit, with `held`; on an object store that takes two looks at `beat` some time apart."""
    found = [claim.model_copy(update={"held": _held(store, name)}) for name, claim in _records(store, CLAIMS, Claim)]
    return sorted(found, key=lambda claim: claim.unit)


_R = TypeVar("_R", bound=JsonRecord)


def _records(store: Store, folder: str, kind: type[_R]) -> Iterator[tuple[str, _R]]:
    for name in store.names(folder):
        with suppress(OSError, ValidationError, ImtokError):
            yield name, kind.model_validate_json(store.file(name).read_bytes())


def _held(store: Store, name: str) -> bool | None:
    """Say whether a living process holds a claim; None where that cannot be seen."""
    if not isinstance(store, LocalStore):
        return None
    try:
        with store.file(name).open("r+b") as file:  # for writing, as NFS demands it of whoever locks
            return False if lock(file, wait=False) else None
    except BlockingIOError:
        return True
    except OSError:
        return None


def unit_of(name: str) -> int | None:
    """Return the unit of a file of claims or failures, None for another file."""
    stem = name.rpartition("/")[2].removesuffix(".json")
    return int(stem) if stem.isascii() and stem.isdigit() else None


def _name(unit: int) -> str:
    return f"{unit:08d}.json"


def _to_bytes(record: JsonRecord) -> bytes:
    return to_line(record, exclude_none=True)
