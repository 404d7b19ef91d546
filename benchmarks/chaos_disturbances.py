"""The disturbances of `benchmarks/chaos.py`, at moments that a seed draws.

Each returns the exit codes that it may cause, and adds to `undo` the functions that mend what it did.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos_processes import Process, catches_signals, wait
from chaos_world import Disk, Link, Undo, damage

Disturb = Callable[[Sequence[Process], list[Undo]], set[int]]


class Disturbances:
    """Everything that can be done to the processes of a start and to their surroundings.

    `is_planned` says whether the list of inputs is frozen, and `committed` names the units that are there;
    `start_another` starts one more process of the same job.
    """

    def __init__(
        self,
        draw: random.Random,
        inputs: Path,
        disk: Disk,
        links: dict[str, Link],
        is_planned: Callable[[], bool],
        committed: Callable[[], set[int]],
        start_another: Callable[[], Process],
    ) -> None:
        self.events = Counter[str]()
        self._draw, self._inputs, self._disk, self._links = draw, inputs, disk, links
        self._is_planned, self._committed, self._start_another = is_planned, committed, start_another

    def draw(self, *, in_bucket: bool) -> tuple[list[Disturb], list[Disturb]]:
        """Draw those before a start and those after it, one to three in all."""
        kinds = [self.kill, self.kill, self.end, self.end, self.stop, self.damage_input]
        kinds += [] if in_bucket else [self.fill_disk]
        for name in (each for each in self._links if in_bucket or each != "store"):
            kinds += [self._breaking(name), self._taking_away(name)]
        drawn = self._draw.choices(kinds, k=self._draw.choice([1, 1, 1, 2, 2, 3]))
        early = [each for each in drawn if each in (self.fill_disk, self.damage_input) and self._draw.random() < 0.3]
        return early, [each for each in drawn if each not in early]

    def kill(self, group: Sequence[Process], _: list[Undo]) -> set[int]:
        """Kill a process."""
        if (pid := self._one_of(group)) is not None:
            self.send(pid, signal.SIGKILL)
        return {-signal.SIGKILL}

    def kill_all(self, group: Sequence[Process], event: str = "") -> set[int]:
        """Kill all processes, as a machine that loses its power does."""
        for pid in [pid for each in group for pid in each.pids()]:
            self.send(pid, signal.SIGKILL, event)
        return {-signal.SIGKILL}

    def end(self, group: Sequence[Process], _: list[Undo]) -> set[int]:
        """Ask a process to end, once it has a handler for that."""
        if (pid := self._one_of(group, catching=True)) is not None:
            self.send(pid, self._draw.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT]))
        return {75}

    def stop(self, group: Sequence[Process], _: list[Undo]) -> set[int]:
        """Stop a process for a while; another one works on and ends while that one is stopped."""
        pid = self._one_of(group)
        if pid is None:
            return set()
        self.send(pid, signal.SIGSTOP)
        if self._draw.random() < 0.5:
            self.events["a process beside a stopped one"] += 1
            other = self._start_another()
            code = wait(other)
            assert code in (0, 1, 74), other.log.read_text()
        else:
            time.sleep(self._draw.uniform(0, 0.3))
        self.send(pid, self._draw.choice([signal.SIGCONT, signal.SIGCONT, signal.SIGKILL]))
        return {-signal.SIGKILL}

    def send(self, pid: int, number: int, event: str = "") -> None:
        """Send a signal, and count it where the process was still there."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        self.events[event or signal.Signals(number).name] += 1

    def fill_disk(self, _: Sequence[Process], undo: list[Undo]) -> set[int]:
        """Fill the disk, where there is one that may be filled."""
        if self._disk.may_fill():
            kind, mending = self._disk.fill(self._draw)
            self.events[kind] += 1
            undo.append(mending)
        return {74}

    def damage_input(self, _: Sequence[Process], undo: list[Undo]) -> set[int]:
        """Damage an input."""
        kind, mending = damage(self._inputs, self._draw, planned=self._is_planned(), committed=self._committed())
        self.events[kind] += 1
        undo.append(mending)
        return {1}

    def _one_of(self, group: Sequence[Process], *, catching: bool = False) -> int | None:
        pids = [pid for each in group for pid in each.pids() if not catching or catches_signals(pid)]
        return self._draw.choice(pids) if pids else None

    def _breaking(self, name: str) -> Disturb:
        def break_connections(_: Sequence[Process], __: list[Undo]) -> set[int]:
            self.events[f"{name}: connections broken"] += 1
            self._links[name].break_connections()
            return {1}

        return break_connections

    def _taking_away(self, name: str) -> Disturb:
        def take_away(_: Sequence[Process], undo: list[Undo]) -> set[int]:
            link = self._links[name]
            self.events[f"{name}: away"] += 1
            link.take_away()
            # Back after seconds: an encode waits that long for it, and the benchmark does not last for ever.
            timer = threading.Timer(self._draw.uniform(0.1, 3), link.bring_back)
            timer.start()
            undo += [link.bring_back, timer.cancel]
            return {1}

        return take_away
