"""The order in which a process takes units: those of its own share, then any that nobody holds.

Several processes of one job may run the same command. Each looks for units until none is free. A process that is slow
or stopped keeps the units in its hands: the one that it works on, and the next ones whose batches its threads have
begun. A dead one keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from imtok.encoding.claims import (
    FAILED,
    Claims,
    begin_share,
    begun_shares,
    clear_failure,
    failure_of,
    record_failure,
    unit_of,
)
from imtok.tokens.folder import find_shards, shard_path


class Taker:
    """Units out, each claimed for this process."""

    def __init__(self, claims: Claims, total: int, present: set[int]) -> None:
        """`total` units are planned, and `present` were committed when the process began."""
        self._claims, self._store, self._share, self._total = claims, claims.store, claims.share, total
        self._present = set(present)
        self._taken: set[int] = set()  # by this process, whatever became of them
        self._failures = self._read_failures()
        begin_share(self._store, self._share)

    def own(self) -> Sequence[int]:
        """Return the units of the own share that are not committed."""
        return [unit for unit in self._share.units(self._total) if unit not in self._present]

    def missing(self) -> Sequence[int]:
        """Return all units that this process would take now, if others left them."""
        return [*self.own(), *self._rest()]

    def units(self) -> Iterator[int]:
        """Yield units, each claimed, until none is free."""
        yield from self._free(self.own())
        taken = -1
        while taken != len(self._taken):
            taken = len(self._taken)
            yield from self._free(self._rest())

    def wait(self, should_stop: Callable[[], bool] | None) -> bool:
        """Find out which holders of the last units live; True where a unit has become free."""
        rest = self._rest()
        return bool(rest) and self._claims.wait(rest, should_stop)

    def committed(self, unit: int) -> None:
        """Give up the claim of a unit that is committed."""
        self._present.add(unit)
        if unit in self._failures:
            clear_failure(self._store, unit)
        self._claims.release(unit)

    def failed(self, unit: int, name: str, reason: str) -> None:
        """Give up a unit that cannot be encoded; the record keeps other processes from trying it now."""
        record_failure(self._store, failure_of(unit, name, reason, self._share))
        self._claims.release(unit)

    def _free(self, units: Sequence[int]) -> Iterator[int]:
        for unit in units:
            if unit in self._taken or unit in self._present or not self._claims.take(unit):
                continue
            if self._store.file(shard_path(unit)).exists():  # another process was here meanwhile
                self._claims.release(unit)
                self._present, _ = find_shards(self._store)
                continue
            self._taken.add(unit)
            yield unit

    def _rest(self) -> Sequence[int]:
        """Return units that are missing and were not taken by this process, the last ones first.

        Their own processes begin with the first ones. Those of processes that never began are left to them, and so are
        those that another process failed with since this one began.
        """
        if not self._claims.exclusive:
            return []
        self._present, _ = find_shards(self._store)
        begun, owner = begun_shares(self._store, self._share), self._share.owner
        known = self._failures
        failed = {unit for unit, content in self._read_failures().items() if known.get(unit) != content}
        return [
            unit
            for unit in range(self._total - 1, -1, -1)
            if unit not in self._present and unit not in self._taken and unit not in failed and owner(unit) in begun
        ]

    def _read_failures(self) -> dict[int, bytes]:
        """Read the records of failed units, as they are."""
        found = {}
        for name in list(self._store.names(FAILED)):
            unit = unit_of(name)
            try:
                data = self._store.file(name).read_bytes()
            except OSError:
                continue  # cleared meanwhile
            if unit is not None:
                found[unit] = data
        return found
