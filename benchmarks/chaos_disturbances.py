"""The disturbances of `benchmarks/chaos.py`, at moments that a seed draws, counted where they took effect."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos_processes import Process, catches_signals, send, stop
from chaos_world import Disk, Link, Undo, damage


@dataclass
class Start:
    """A start of some processes, and what may come of its disturbances."""

    group: Sequence[Process] = ()
    undo: list[Undo] = field(default_factory=list)  # functions that mend what was done
    codes: set[int] = field(default_factory=lambda: {0})  # exit codes that it may have
    suspects: set[str] = field(default_factory=set)  # words of inputs and servers that may fail

    def pids(self, *, catching: bool = False) -> list[int]:
        """Return the processes at work, those alone that catch signals where asked for."""
        return [pid for each in self.group for pid in each.pids() if not catching or catches_signals(pid)]

    def mend(self) -> None:
        """Mend all that was done."""
        while self.undo:
            self.undo.pop()()


Disturb = Callable[[Start], None]


class Disturbances:
    """Everything that can be done to the processes of a start and to their surroundings.

    `is_planned` says whether the list of inputs is frozen, and `committed` names the units that are there; `run_beside`
    runs one more process of the same job to its end; `lose_journal` removes the journal, False where there is none.
    """

    def __init__(
        self,
        draw: random.Random,
        inputs: Path,
        disk: Disk,
        links: dict[str, Link],
        is_planned: Callable[[], bool],
        committed: Callable[[], set[int]],
        run_beside: Callable[[Start], None],
        lose_journal: Callable[[], bool],
    ) -> None:
        self.events = Counter[str]()
        self._draw, self._inputs, self._disk, self._links = draw, inputs, disk, links
        self._is_planned, self._committed = is_planned, committed
        self._run_beside, self._lose_journal = run_beside, lose_journal

    def draw(self, *, in_bucket: bool) -> tuple[list[Disturb], list[Disturb]]:
        """Draw those before a start and those after it, one to three in all."""
        kinds = [self.kill, self.kill, self.end, self.end, self.stop, self.damage_input]
        kinds += [] if in_bucket else [self.fill_disk, self.remove_journal]
        kinds += [disturb for name in self._links for disturb in self.of_link(name)]
        drawn = self._draw.choices(kinds, k=self._draw.choice([1, 1, 1, 2, 2, 3]))
        early = [each for each in drawn if each in (self.fill_disk, self.damage_input) and self._draw.random() < 0.3]
        return early, [each for each in drawn if each not in early]

    def of_link(self, name: str) -> list[Disturb]:
        """Return those of the link to a server."""
        return [self._breaking(name), self._taking_away(name)]

    def kill(self, start: Start) -> None:
        """Kill a process."""
        start.codes |= {-signal.SIGKILL}
        if pids := start.pids():
            self.send(self._draw.choice(pids), signal.SIGKILL)

    def kill_all(self, start: Start) -> None:
        """Kill all processes, as a machine that loses its power does."""
        start.codes |= {-signal.SIGKILL}
        killed = [self.send(pid, signal.SIGKILL) for pid in start.pids()]
        self.events["all processes killed at once"] += any(killed)

    def end(self, start: Start) -> None:
        """Ask a process to end, once it has a handler for that."""
        start.codes |= {75}
        if pids := start.pids(catching=True):
            self.send(self._draw.choice(pids), self._draw.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT]))

    def stop(self, start: Start) -> None:
        """Stop a process for a while; another one works on and ends while that one is stopped."""
        start.codes |= {-signal.SIGKILL}
        pids = start.pids()
        if not pids or not stop(pid := self._draw.choice(pids)):
            return
        self.events["SIGSTOP"] += 1
        if self._draw.random() < 0.5:
            self.events["a process beside a stopped one"] += 1
            self._run_beside(start)
        else:
            time.sleep(self._draw.uniform(0, 0.3))
        self.send(pid, self._draw.choice([signal.SIGCONT, signal.SIGCONT, signal.SIGKILL]))

    def send(self, pid: int, number: int) -> bool:
        """Send a signal, and count it where the process was still there."""
        sent = send(pid, number)
        self.events[signal.Signals(number).name] += sent
        return sent

    def fill_disk(self, start: Start) -> None:
        """Fill the disk, where there is one that may be filled."""
        if self._disk.may_fill():
            start.codes |= {74}
            kind, mending = self._disk.fill(self._draw)
            self.events[kind] += self._disk.is_full()
            start.undo.append(mending)

    def damage_input(self, start: Start) -> None:
        """Damage an input."""
        kind, path, mending = damage(self._inputs, self._draw, planned=self._is_planned(), committed=self._committed())
        self.events[kind] += 1
        start.undo.append(mending)
        start.codes |= {1}
        # Of a process that has listed its inputs before another one, any unit may fail by the last of these.
        start.suspects |= {path.name, "its inputs changed meanwhile"}

    def remove_journal(self, _: Start) -> None:
        """Remove the journal, on which nothing relies."""
        self.events["journal removed"] += self._lose_journal()

    def _breaking(self, name: str) -> Disturb:
        def break_connections(start: Start) -> None:
            start.codes |= {1}
            start.suspects |= self._links[name].names
            self.events[f"{name}: connections broken"] += self._links[name].break_connections()

        return break_connections

    def _taking_away(self, name: str) -> Disturb:
        def take_away(start: Start) -> None:
            link, at_work = self._links[name], bool(start.pids())
            start.codes |= {1}
            start.suspects |= link.names
            resets = self._draw.random() < 0.5
            broken, reset = link.take_away(resets=resets), link.reset
            self.events[f"{name}: connections broken"] += broken

            def bring_back() -> None:
                link.bring_back()
                self.events[f"{name}: connections reset while it was away"] += link.reset - reset

            # Back after seconds: an encode waits that long for it, and the benchmark does not last for ever.
            timer = threading.Timer(self._draw.uniform(0.1, 3), link.bring_back)
            timer.start()
            start.undo += [bring_back, timer.cancel]
            self.events[f"{name}: away while processes work"] += at_work

        return take_away
