"""Claims on an object store: leases, which their holder renews and which others take over once they stand still.

A claim is an object that is created by a conditional put. Its holder puts another content from time to time. Whoever
finds a claim remembers its tag. A claim whose tag stays the same for the length of a lease, by the clock of the one
who looks, has a dead holder: it is replaced, on the condition that its tag is still the same. No clocks are compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from imtok.data import objects
from imtok.data.objects import NoConditions
from imtok.data.remote_errors import RemoteError
from imtok.encoding.claims import CLAIMS, Claim, Claims, LocalClaims, claim_of
from imtok.encoding.share import Share
from imtok.errors import Interrupted, TokensError
from imtok.tokens.folder import INFO, shard_path
from imtok.tokens.json_lines import to_line
from imtok.tokens.object_store import ObjectStore
from imtok.tokens.store import LocalStore, Store

LEASE_SECONDS = 60.0
_RENEWALS = 4  # in the time of a lease
_LOOKS = 8  # in the time of a lease, at claims of others


def open_claims(store: Store, share: Share, lease_seconds: float | None = None) -> Claims:
    """Return the claims of this process on the units of a token folder."""
    if isinstance(store, ObjectStore):
        return Leases(store, share, lease_seconds or LEASE_SECONDS)
    assert isinstance(store, LocalStore)
    return LocalClaims(store, share)


@dataclass(frozen=True)
class _Seen:
    """A claim of another process as it was first seen with this tag."""

    tag: str
    at: float  # seconds of this process's own clock
    renewed: bool = False  # since it was first seen with any tag


class Leases(Claims):
    """Claims as objects; a thread renews those that this process holds."""

    def __init__(self, store: ObjectStore, share: Share, seconds: float) -> None:
        super().__init__(store, share)
        self._objects, self._seconds = store, seconds
        self._held: dict[int, tuple[Claim, str]] = {}  # with the tag of its object
        self._seen: dict[int, _Seen] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._checked = False

    def take(self, unit: int) -> bool:
        """Create the object of a claim, or replace one that stood still for the time of a lease."""
        if not self._conditions():
            return True
        claim = claim_of(unit, self.share, self._seconds)
        try:
            tag = self._create(claim) or self._take_over(claim)
        except RemoteError:
            return False  # in doubt another one holds it; there is a next look
        if tag is None:
            return False
        with self._lock:
            self._held[unit] = claim, tag
        self._renew_from_now_on()
        return True

    def release(self, unit: int) -> None:
        """Remove the object."""
        with self._lock:
            held = self._held.pop(unit, None)
        if held is not None:
            with suppress(RemoteError):
                objects.remove(self._objects.storage, self._address(unit))

    def close(self) -> None:
        """Give up all claims, and renew none any more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for unit in list(self._held):
            self.release(unit)

    def wait(self, units: Collection[int], should_stop: Callable[[], bool] | None = None) -> bool:
        """Watch the claims of some units until each has been renewed, or one of them is free."""
        left = set(units)
        while left and self.exclusive:
            if should_stop is not None and should_stop():
                raise Interrupted("stopped on request")
            for unit in sorted(left):
                if self._is_free(unit):
                    return True
                if self._seen[unit].renewed or self._objects.file(shard_path(unit)).exists():
                    left.discard(unit)
            if left:
                self._ended.wait(self._seconds / _LOOKS)
        return False

    def _is_free(self, unit: int) -> bool:
        """Say whether nobody holds a unit, or its holder is dead; looks at the claim again."""
        try:
            _, tag = objects.read_tagged(self._objects.storage, self._address(unit))
        except RemoteError as error:
            if error.missing:
                self._seen.pop(unit, None)
                return not self._objects.file(shard_path(unit)).exists() or self._forget(unit)
            tag = self._seen[unit].tag if unit in self._seen else ""
        return self._stands_still(unit, tag)

    def _forget(self, unit: int) -> bool:
        """Note that a unit needs no more looks, as it is committed."""
        self._seen[unit] = _Seen("", time.monotonic(), renewed=True)
        return False

    def _stands_still(self, unit: int, tag: str) -> bool:
        """Remember the tag of another's claim; True where it has been the same for the time of a lease."""
        seen, now = self._seen.get(unit), time.monotonic()
        if seen is None or seen.tag != tag:
            self._seen[unit] = _Seen(tag, now, renewed=seen is not None)
            return False
        return now - seen.at >= self._seconds

    def _create(self, claim: Claim) -> str | None:
        return objects.create(self._objects.storage, self._address(claim.unit), to_line(claim, exclude_none=True))

    def _take_over(self, claim: Claim) -> str | None:
        """Replace a claim whose holder is dead; None where it lives, or another process was quicker."""
        storage, address, own = self._objects.storage, self._address(claim.unit), to_line(claim, exclude_none=True)
        data, tag = objects.read_tagged(storage, address)
        if data == own:  # a put that was repeated since its answer was lost
            return tag
        if not self._stands_still(claim.unit, tag):
            return None
        return objects.exchange(storage, address, own, tag)

    def _conditions(self) -> bool:
        """Say whether the store knows conditional puts: one for a file that is there must fail, whatever it holds."""
        if not self._checked and self.exclusive:
            address = self._objects.file(INFO).address
            try:
                if objects.create(self._objects.storage, address, self._objects.file(INFO).read_bytes()) is not None:
                    self.deal_by_number("its store ignores the conditions of puts")
                self._checked = True
            except NoConditions as error:
                self.deal_by_number(error.reason)
            except (RemoteError, TokensError, FileNotFoundError):
                return True  # the network; the next look finds out
        return self.exclusive

    def _address(self, unit: int) -> str:
        return self._objects.file(f"{CLAIMS}/{unit:08d}.json").address

    def _renew_from_now_on(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="imtok-leases", daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            with self._lock:
                held = dict(self._held)
            for unit, (claim, tag) in held.items():
                self._renew_one(unit, claim, tag)

    def _renew_one(self, unit: int, claim: Claim, tag: str) -> None:
        newer = claim.model_copy(update={"beat": claim.beat + 1})
        try:
            data = to_line(newer, exclude_none=True)
            renewed = objects.exchange(self._objects.storage, self._address(unit), data, tag)
        except RemoteError:
            return  # the next renewal may succeed
        with self._lock:
            if unit in self._held:
                if renewed is None:  # taken over, as by a process that saw this one stopped
                    del self._held[unit]
                else:
                    self._held[unit] = newer, renewed
        if renewed is not None and unit not in self._held:  # released meanwhile
            with suppress(RemoteError):
                objects.remove(self._objects.storage, self._address(unit))
