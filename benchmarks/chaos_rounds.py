"""Rounds of `benchmarks/chaos.py`: each begins a token folder, disturbs its encode, and compares the result."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from chaos_checks import Difference, Runner, Tally
from chaos_disturbances import Disturbances, Start
from chaos_exports import Exports
from chaos_places import Bucket, Folder, Place, contents
from chaos_processes import Command
from chaos_world import SMALL_FILE, UNIT_SIZE, Disk, Link, draw_inputs

from imtok.config import NetworkConfig, TokenizerConfig
from imtok.quantizer_config import FSQConfig
from imtok.tokenizer import Tokenizer

_MOST_STARTS = 25  # of a round, which is then finished in peace
_MOST_DIFFERENCES = 5  # after which there are no more rounds
_LEASE = 2  # seconds, after which the units of a process that was killed are free on the S3 server


@dataclass(frozen=True)
class Choices:
    """Choices of a person."""

    restarts: int
    minutes: float  # no round begins later
    seed: int
    scale: int
    torchrun: float  # share of the starts
    fresh: float  # share of the other starts
    in_bucket: float  # share of the rounds whose tokens are objects
    formats: Sequence[str]
    exports_each: int  # of a round


class Rounds:
    """Rounds of one set of inputs."""

    def __init__(
        self,
        choices: Choices,
        scratch: Path,
        disk: Disk,
        links: dict[str, Link],
        bucket: Callable[[str], Bucket] | None,
    ) -> None:
        self.tally, self._choices, self._draw = Tally(), choices, random.Random(choices.seed)
        self._runner = Runner(scratch, self.tally)
        self._scratch, self._disk, self._links, self._bucket = scratch, disk, links, bucket
        self._inputs, self._whole = scratch / "inputs", Folder(scratch / "whole")
        self._tokens: Place = Folder(disk.folder / "tokens")
        self._number = 0  # of processes of the start before
        self.inputs, self._broken = draw_inputs(self._inputs, choices.scale)
        self._sources = self._find_sources()
        _tiny_tokenizer().save(scratch / "tokenizer")
        self._runner.in_peace(self._encode(self._whole))
        self._expected = contents(self._whole)
        Tally().count_images(self._whole, self.inputs, self._broken)
        self._exports = Exports(scratch, disk, self._whole, self._draw, self._runner, self.tally)
        self.disturbances = Disturbances(
            self._draw,
            self._inputs,
            disk,
            links,
            lambda: "plan/inputs-00000.jsonl" in self._tokens.names("plan"),
            lambda: {int(Path(name).stem) for name in self._shards()},
            self._run_beside,
            lambda: self._tokens.clear("journal"),
        )

    def run(self) -> None:
        """Run rounds until there were enough starts, or too many differences, or the time is over."""
        tally, end = self.tally, time.monotonic() + 60 * self._choices.minutes
        while (
            tally.restarts < self._choices.restarts
            and len(tally.differences) < _MOST_DIFFERENCES
            and time.monotonic() < end
        ):
            start = Start()
            print(f"{tally.restarts} restarts in {tally.rounds} rounds", file=sys.stderr, flush=True)
            try:
                self._round(start)
            except Difference as error:
                tally.differences.append(f"round {tally.rounds}, start {tally.restarts}: {error}")
                print(f"difference: {tally.differences[-1]}", file=sys.stderr, flush=True)
                self._runner.end_all()
                start.mend()
                self._tokens.clear()
                Folder(self._disk.folder / "export").clear()

    def end(self) -> None:
        """Kill whatever is still at work."""
        self._runner.end_all()

    def _round(self, start: Start) -> None:
        tally = self.tally
        tally.rounds += 1
        in_bucket = self._bucket is not None and self._draw.random() < self._choices.in_bucket
        self._tokens = Folder(self._disk.folder / "tokens")
        if in_bucket and self._bucket:
            self._tokens = self._bucket(f"tokens-{tally.rounds}")
            tally.rounds_in_bucket += 1
        self._number, committed = 0, set[str]()
        for _ in range(_MOST_STARTS):
            if tally.restarts >= self._choices.restarts or "MANIFEST.jsonl" in self._tokens.names():
                break
            start.codes, start.suspects = {0}, set()
            self._restart(start)
            before, committed = committed, self._shards()
            tally.compare_committed(self._tokens, committed, before, self._expected)
        self._runner.in_peace(self._encode(self._tokens))
        tally.compare(self._tokens, self._expected)
        tally.count_images(self._tokens, self.inputs, self._broken)
        self._runner.in_peace(Command(["verify", self._tokens.address]))
        for name in self._draw.sample(
            self._choices.formats, min(self._choices.exports_each, len(self._choices.formats))
        ):
            self._exports.export(self._tokens, name, self.disturbances)
        self._tokens.clear()

    def _restart(self, start: Start) -> None:
        """Start the command in some layout, disturb it at random moments, and wait until all have ended."""
        draw, events = self._draw, self.disturbances.events
        name, commands = self._layout()
        in_bucket = not isinstance(self._tokens, Folder)
        early, late = self.disturbances.draw(in_bucket=in_bucket)
        start.group = ()
        for disturb in early:
            disturb(start)
        if not self._disk.mounted and not in_bucket and draw.random() < 0.2:
            events["files may not grow"] += 1
            commands = [replace(each, largest_file=SMALL_FILE) for each in commands]
            start.codes |= {74}
        start.group = [self._runner.start(each) for each in commands]
        self.tally.restarts += 1
        self.tally.layouts[name] += 1
        before, self._number = self._number, sum(each.ranks for each in commands)
        self.tally.other_numbers_of_processes += before not in (0, self._number)
        for disturb in late:
            self._wait_for_a_moment(start)
            disturb(start)
        if draw.random() < 0.6:
            self._wait_for_a_moment(start)
            self.disturbances.kill_all(start)
        if draw.random() < 0.5:
            self._wait_for_a_moment(start)
            start.mend()
        for command, process in zip(commands, start.group, strict=True):
            self._runner.check_end(command, process, start.codes, start.suspects)
        start.mend()

    def _run_beside(self, start: Start) -> None:
        """Run one more process of the job to its end, which nothing disturbs beside what was disturbed already."""
        command = self._encode(self._tokens)
        self._runner.check_end(command, self._runner.start(command), start.codes & {0, 1, 74}, start.suspects)

    def _layout(self) -> tuple[str, list[Command]]:
        """Draw the processes of a start."""
        draw = self._draw
        if draw.random() < self._choices.torchrun:
            return "torchrun", [self._encode(self._tokens, "--workers", 1, kind="torchrun", ranks=draw.choice([2, 3]))]
        kinds = ["one", "several", "shards", "ranks"]
        chosen = draw.sample(kinds, 2) if draw.random() < 0.2 else [draw.choice(kinds)]
        commands = [each for kind in chosen for each in self._processes(kind)]
        return " and ".join(sorted(chosen)), commands[:4]

    def _processes(self, kind: str) -> list[Command]:
        draw = self._draw
        how = {"kind": "fresh" if draw.random() < self._choices.fresh else "forked"}
        workers = ["--workers", draw.choice([1, 2])]
        if kind in ("one", "several"):
            number = 1 if kind == "one" else draw.choice([2, 3])
            return [self._encode(self._tokens, *workers, **how) for _ in range(number)]
        number = draw.choice([2, 3, 4])
        some = draw.sample(range(number), draw.randint(1, min(3, number)))
        if kind == "shards":
            return [self._encode(self._tokens, *workers, "--shard", f"{each}/{number}", **how) for each in some]
        world = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
        return [
            self._encode(self._tokens, environment=world | {"RANK": str(each), "LOCAL_RANK": str(each)}, **how)
            for each in some
        ]

    def _wait_for_a_moment(self, start: Start) -> None:
        """Wait until some more units are committed, or for a random moment of the start."""
        if self._draw.random() < 0.3:
            time.sleep(self._draw.uniform(0, 0.4))
            return
        goal = len(self._shards()) + self._draw.randrange(1, 8)
        while any(each.poll() is None for each in start.group) and len(self._shards()) < goal:
            time.sleep(self._tokens.pause)
        time.sleep(self._draw.uniform(0, 0.02))

    def _encode(self, tokens: Place, *options: object, **how: Any) -> Command:
        words = ["encode", *self._sources, "-o", tokens.address, "-t", self._scratch / "tokenizer", "--device", "cpu"]
        words += ["--unit-size", UNIT_SIZE, "--batch-size", 2, "--lease", _LEASE]
        return Command([*map(str, [*words, *options])], **how)

    def _find_sources(self) -> list[object]:
        """Return folders of pictures and of archives, and tars: by HTTP and from S3 where there are these servers."""
        served: list[object] = sorted((self._inputs / "served").iterdir())
        objects: list[object] = sorted((self._inputs / "objects").iterdir())
        if "source" in self._links:
            address = f"http://127.0.0.1:{self._links['source'].port}"
            served = [f"{address}/{path.name}" for path in served if isinstance(path, Path)]
        if self._bucket:
            place = self._bucket("inputs")
            place.put(self._inputs / "objects")
            objects = [f"{place.address}/{name}" for name in sorted(place.names())]
        return [self._inputs / "photos", self._inputs / "tars", *served, *objects]

    def _shards(self) -> set[str]:
        return {name for name in self._tokens.names("shards") if not Path(name).name.startswith(".")}


def _tiny_tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    network = NetworkConfig(fold=4, channels=(8, 16), blocks=1)
    return Tokenizer(TokenizerConfig(network=network, quantizer=FSQConfig(levels=(5, 5, 5)), size=32))
