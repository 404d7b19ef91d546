"""The checks of `benchmarks/chaos.py`: how commands end, and files against those of an undisturbed encode."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos_places import Place, contents
from chaos_processes import Command, Process, send, start

_LONGEST = 300  # seconds that a command may take
_ENDS = {0: "ended well", 74: "ended with 74, the disk is full", 75: "ended with 75, stopped on request"}
_WORDS = {74: "make room", 75: "the same command"}  # that the message of an exit code holds


class Difference(Exception):
    """Files or an end of a command that differ from those of an undisturbed encode."""


@dataclass
class Tally:
    """Everything that was counted."""

    restarts: int = 0
    processes: int = 0
    rounds: int = 0
    rounds_in_bucket: int = 0
    other_numbers_of_processes: int = 0  # starts with more or fewer processes than the start before of the same folder
    layouts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)  # of disturbed processes, and of units that failed in them
    images: int = 0  # in the manifests of all rounds, as many as in the inputs each time
    skipped: int = 0
    files_compared: int = 0  # of complete folders and exports
    bytes_compared: int = 0
    shards_compared_before: int = 0  # after each start, while their folder was incomplete
    exports: int = 0
    exports_read_back: int = 0  # by `imtok verify --against`
    formats_exported: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def compare(self, place: Place, expected: dict[str, bytes]) -> None:
        """Compare all files of a place outside its journal; raises Difference."""
        found = contents(place)
        if set(found) != set(expected):
            lacking, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
            raise Difference(f"{place.address}: lacks {lacking}, has {extra} beside the files of the undisturbed one")
        for name, data in found.items():
            if data != expected[name]:
                raise Difference(f"{place.address}: {name} differs from the undisturbed one")
        self.files_compared += len(found)
        self.bytes_compared += sum(map(len, found.values()))

    def compare_committed(self, place: Place, names: set[str], before: set[str], expected: dict[str, bytes]) -> None:
        """Compare the shards of an incomplete folder, those that were there `before` included; raises Difference."""
        if not names >= before:
            raise Difference(f"{place.address}: {sorted(before - names)} are gone")
        for name in names:
            if place.read(name) != expected.get(name):
                raise Difference(f"{place.address}: the committed {name} differs from the undisturbed one")
        self.shards_compared_before += len(names)

    def count_images(self, place: Place, inputs: int, broken: int) -> None:
        """Count the images of a complete folder by its manifest; raises Difference."""
        units = [json.loads(line) for line in place.read("MANIFEST.jsonl").splitlines()]
        images, skipped = (sum(unit[name] for unit in units) for name in ("images", "skipped"))
        if (images + skipped, skipped) != (inputs, broken):
            raise Difference(
                f"{place.address}: {images} images and {skipped} skips of {inputs} inputs, {broken} broken"
            )
        self.images += images
        self.skipped += skipped


class Runner:
    """Commands with a log each, and a count of how they ended."""

    def __init__(self, scratch: Path, tally: Tally) -> None:
        self._scratch, self._tally, self._logs = scratch, tally, 0
        self._started: list[Process] = []

    def start(self, command: Command) -> Process:
        """Start a command."""
        self._logs += 1
        self._tally.processes += command.ranks
        process = start(command, self._scratch / f"log-{self._logs}")
        self._started = [*(each for each in self._started if each.poll() is None), process]
        return process

    def in_peace(self, command: Command) -> str:
        """Run a command that nothing disturbs, and return what it printed; raises Difference where it fails."""
        process = self.start(command)
        code, text = self.wait(process), process.log.read_text()
        if code:
            raise Difference(f"undisturbed, {' '.join(command.words)} ended with {code}: {text}")
        process.log.unlink()
        return text

    def check_end(self, command: Command, process: Process, codes: set[int], suspects: set[str]) -> None:
        """Wait for the end of a disturbed command; raises Difference where it is not one that it may have.

        `suspects` are words of inputs and servers that may have failed: each failure has to name one.
        """
        code, text = self.wait(process), process.log.read_text()
        words = f"{' '.join(command.words)} ended with {code}: {text}"
        expected = {0, 1} if command.kind == "torchrun" else codes
        if code not in expected:
            raise Difference(f"{words}\nexpected one of {sorted(expected)}")
        own = text.split("torch/distributed/elastic")[0].split("Sending process")[0]
        if {"Traceback", "unforeseen"} & set(own.replace(":", " ").split()):
            raise Difference(words)
        if code in _WORDS and _WORDS[code] not in text:
            raise Difference(f"{words}\nexpected the words {_WORDS[code]!r}")
        failed = [line for line in text.splitlines() if line.startswith("failed: ")]
        reasons = failed or [line for line in text.splitlines() if line.startswith("error: ")]
        if code == 1 and command.kind != "torchrun":
            if not reasons:
                raise Difference(f"{words}\nexpected a reason")
            for line in reasons:
                if not any(word in line for word in suspects):
                    raise Difference(f"{words}\nonly these may fail: {sorted(suspects)}")
        if code == 0 and failed:
            raise Difference(f"{words}\nexpected no failure")
        self._count(command, code, failed)
        process.log.unlink()

    def wait(self, process: Process) -> int:
        """Wait for the end of a command and return its exit code, negative after a signal; raises Difference."""
        until = time.monotonic() + _LONGEST
        while (code := process.poll()) is None:
            if time.monotonic() > until:
                raise Difference(f"{process.pids()} still at work after {_LONGEST} s: {process.log.read_text()}")
            time.sleep(0.01)
        return code

    def end_all(self) -> None:
        """Kill whatever is still at work, after a difference."""
        for process in self._started:
            while process.poll() is None:
                for pid in process.pids():
                    send(pid, signal.SIGKILL)
                time.sleep(0.01)

    def _count(self, command: Command, code: int, failed: list[str]) -> None:
        ends = self._tally.ends
        if command.kind == "torchrun":
            ends[f"torchrun ended with {code}"] += 1
        elif code < 0:
            ends[f"killed by {signal.Signals(-code).name}"] += 1
        elif code == 1:
            ends["ended with 1, units failed" if failed else "ended with 1, refused"] += 1
        else:
            ends[_ENDS[code]] += 1
        ends["units that failed and were named"] += len(failed)
