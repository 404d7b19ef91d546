"""Rounds of `benchmarks/chaos.py`: each begins a token folder, disturbs its encode, and compares the result."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from chaos_disturbances import Disturbances
from chaos_places import Folder, Place, contents
from chaos_processes import Command, Process, start, wait
from chaos_world import UNIT_SIZE, Disk, Link, Undo, draw_inputs

from imtok.config import NetworkConfig, TokenizerConfig
from imtok.quantizer_config import FSQConfig
from imtok.tokenizer import Tokenizer
from imtok.tokens import open_tokens

_MOST_STARTS = 25  # of a round, which is then finished in peace
_UNSHARDED = {"nanogpt", "emu3"}  # formats of one file, or of one for each image
_SMALL_FILE = 500  # bytes: the largest file that a process may write, where no disk can be filled


@dataclass(frozen=True)
class Choices:
    """Choices of a person."""

    restarts: int
    seed: int
    scale: int
    torchrun: float  # share of the starts
    fresh: float  # share of the other starts
    in_bucket: float  # share of the rounds whose tokens are objects
    formats: Sequence[str]


@dataclass
class Tally:
    """Everything that was counted."""

    restarts: int = 0
    processes: int = 0
    rounds: int = 0
    rounds_in_bucket: int = 0
    exports: int = 0
    layouts: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    bytes_compared: int = 0


class Rounds:
    """Rounds of one set of inputs."""

    def __init__(
        self, choices: Choices, scratch: Path, disk: Disk, links: dict[str, Link], bucket: Callable[[str], Place] | None
    ) -> None:
        self.tally, self._choices, self._draw = Tally(), choices, random.Random(choices.seed)
        self._scratch, self._disk, self._links, self._bucket = scratch, disk, links, bucket
        self._logs = 0
        self._inputs, self._whole = scratch / "inputs", Folder(scratch / "whole")
        self._tokens: Place = Folder(disk.folder / "tokens")
        count, broken = draw_inputs(self._inputs, choices.scale)
        _tiny_tokenizer().save(scratch / "tokenizer")
        self._in_peace(self._encode(self._whole))
        self._expected = contents(self._whole)
        dataset = open_tokens(self._whole.address)
        skipped = sum(shard.skipped for shard in dataset.shards())
        assert (len(dataset) + skipped, skipped) == (count, broken), (len(dataset), skipped)
        self.disturbances = Disturbances(
            self._draw,
            self._inputs,
            disk,
            links,
            lambda: "plan/inputs-00000.jsonl" in self._tokens.names("plan"),
            lambda: {int(Path(name).stem) for name in self._shards()},
            lambda: self._start(self._encode(self._tokens)),
        )

    def run(self) -> None:
        """Run rounds until there were enough starts."""
        while self.tally.restarts < self._choices.restarts:
            self._round()

    def _round(self) -> None:
        self.tally.rounds += 1
        in_bucket = self._bucket is not None and self._draw.random() < self._choices.in_bucket
        self._tokens = Folder(self._disk.folder / "tokens")
        if in_bucket and self._bucket:
            self._tokens = self._bucket(f"tokens-{self.tally.rounds}")
            self.tally.rounds_in_bucket += 1
        for _ in range(_MOST_STARTS):
            if self.tally.restarts >= self._choices.restarts or "MANIFEST.jsonl" in self._tokens.names():
                break
            self._restart()
            for name in self._shards():
                self._compare_bytes(name, self._tokens.read(name), self._expected[name])
        self._in_peace(self._encode(self._tokens))
        self._compare(self._tokens, self._expected)
        self._in_peace(Command(["verify", self._tokens.address]))
        for name in self._draw.sample(self._choices.formats, min(2, len(self._choices.formats))):
            self._export(name)
        self._tokens.clear()

    def _restart(self) -> None:
        """Start the command in some layout, disturb it at random moments, and wait until all have ended."""
        draw, undo, allowed = self._draw, list[Undo](), {0}
        name, commands = self._layout()
        in_bucket = not isinstance(self._tokens, Folder)
        early, late = self.disturbances.draw(in_bucket=in_bucket)
        for disturb in early:
            allowed |= disturb([], undo)
        if not self._disk.mounted and not in_bucket and draw.random() < 0.2:
            self.disturbances.events["files may not grow"] += 1
            commands, allowed = [replace(each, largest_file=_SMALL_FILE) for each in commands], allowed | {74}
        group = [self._start(each) for each in commands]
        self.tally.restarts += 1
        self.tally.layouts[name] += 1
        for disturb in late:
            self._wait_for_a_moment(group)
            allowed |= disturb(group, undo)
        if draw.random() < 0.6:
            self._wait_for_a_moment(group)
            allowed |= self.disturbances.kill_all(group)
        if draw.random() < 0.5:
            self._wait_for_a_moment(group)
            mend(undo)
        for command, process in zip(commands, group, strict=True):
            self._check_end(command, process, allowed)
        mend(undo)

    def _check_end(self, command: Command, process: Process, allowed: set[int]) -> None:
        code, text = wait(process), process.log.read_text()
        self.tally.exits[code] += 1
        expected = {0, 1} if command.kind == "torchrun" else allowed
        assert code in expected, f"{command} ended with {code}, expected {expected}: {text}"
        own = text.split("torch/distributed/elastic")[0].split("Sending process")[0]
        assert not {"Traceback", "unforeseen"} & set(own.replace(":", " ").split()), text
        process.log.unlink()

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

    def _wait_for_a_moment(self, group: Sequence[Process]) -> None:
        """Wait until some more units are committed, or for a random moment of the start."""
        if self._draw.random() < 0.3:
            time.sleep(self._draw.uniform(0, 0.4))
            return
        goal = len(self._shards()) + self._draw.randrange(1, 8)
        while any(each.poll() is None for each in group) and len(self._shards()) < goal:
            time.sleep(0.002)
        time.sleep(self._draw.uniform(0, 0.02))

    def _encode(self, tokens: Place, *options: object, **how: Any) -> Command:
        served: list[object] = sorted((self._inputs / "served").iterdir())
        if "source" in self._links:
            address = f"http://127.0.0.1:{self._links['source'].port}"
            served = [f"{address}/{path.name}" for path in served if isinstance(path, Path)]
        sources = [self._inputs / "photos", self._inputs / "tars", *served]
        words = ["encode", *sources, "-o", tokens.address, "-t", self._scratch / "tokenizer", "--device", "cpu"]
        return Command([*map(str, [*words, "--unit-size", UNIT_SIZE, "--batch-size", 2, *options])], **how)

    def _start(self, command: Command) -> Process:
        self._logs += 1
        self.tally.processes += command.ranks if command.kind == "torchrun" else 1
        return start(command, self._scratch / f"log-{self._logs}")

    def _in_peace(self, command: Command) -> None:
        """Run a command that nothing disturbs."""
        process = self._start(command)
        assert wait(process) == 0, f"{command.words}: {process.log.read_text()}"
        process.log.unlink()

    def _export(self, name: str) -> None:
        """Export the set under kills; the result is that of an export of the undisturbed set in peace."""
        peace, output = Folder(self._scratch / f"export-{name}"), Folder(self._scratch / "export")
        options = ["--to", name, "--shuffle", "3", "--val-fraction", "0.2"]
        options += [] if name in _UNSHARDED else ["--shard-size", "20"]
        if not peace.names():
            self._in_peace(Command(["export", self._whole.address, *options, "-o", peace.address]))
        command = Command(["export", self._tokens.address, *options, "-o", output.address])
        for _ in range(self._draw.randrange(3)):
            process = self._start(command)
            time.sleep(self._draw.uniform(0.05, 0.4))
            self.disturbances.kill_all([process], "SIGKILL of an export")
            wait(process)
        self._in_peace(command)
        self._compare(output, contents(peace))
        self.tally.exports += 1
        output.clear()

    def _shards(self) -> list[str]:
        return [name for name in self._tokens.names("shards") if not Path(name).name.startswith(".")]

    def _compare(self, place: Place, expected: dict[str, bytes]) -> None:
        found = contents(place)
        assert set(found) == set(expected), f"{place.address}: only here or only there: {set(found) ^ set(expected)}"
        for name, data in found.items():
            self._compare_bytes(name, data, expected[name])

    def _compare_bytes(self, name: str, found: bytes, expected: bytes) -> None:
        assert found == expected, f"{name} differs from the undisturbed one"
        self.tally.bytes_compared += len(found)


def mend(undo: list[Undo]) -> None:
    """Mend all that was disturbed."""
    while undo:
        undo.pop()()


def _tiny_tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    network = NetworkConfig(fold=4, channels=(8, 16), blocks=1)
    return Tokenizer(TokenizerConfig(network=network, quantizer=FSQConfig(levels=(5, 5, 5)), size=32))
