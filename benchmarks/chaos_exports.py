"""Exports of `benchmarks/chaos.py`: disturbed ones of a set that was disturbed, against undisturbed ones."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

from chaos_checks import Difference, Runner, Tally
from chaos_disturbances import Disturbances, Start
from chaos_places import Folder, Place, contents
from chaos_processes import Command, Process
from chaos_world import SMALL_FILE, Disk

_UNSHARDED = {"nanogpt", "emu3"}  # formats of one file, or of one for each image
_MOST_STARTS = 3  # that are disturbed, of an export


class Exports:
    """Exports to any format, each held against that of `whole`, the undisturbed token folder."""

    def __init__(
        self, scratch: Path, disk: Disk, whole: Place, draw: random.Random, runner: Runner, tally: Tally
    ) -> None:
        self._scratch, self._whole, self._draw, self._runner, self._tally = scratch, whole, draw, runner, tally
        self._disk, self._output = disk, Folder(disk.folder / "export")

    def export(self, tokens: Place, name: str, disturbances: Disturbances) -> None:
        """Export a complete set under disturbances; raises Difference where its files are not the undisturbed ones."""
        expected = self._in_peace(name)
        command = self._command(tokens, name, self._output)
        for _ in range(self._draw.randint(1, _MOST_STARTS)):
            self._disturbed(command, disturbances, in_bucket=not isinstance(tokens, Folder))
        self._runner.in_peace(command)
        self._tally.compare(self._output, expected)
        self._tally.exports += 1
        self._tally.formats_exported[name] += 1
        self._output.clear()

    def _in_peace(self, name: str) -> dict[str, bytes]:
        """Return the files of the undisturbed export, which is made and read back once."""
        place = Folder(self._scratch / f"export-{name}")
        if not place.names():
            self._runner.in_peace(self._command(self._whole, name, place))
            said = self._runner.in_peace(Command(["verify", place.address, "--against", self._whole.address]))
            if "sound, " not in said:
                raise Difference(f"{place.address}: {said}")
            self._tally.exports_read_back += 1
        return contents(place)

    def _disturbed(self, command: Command, disturbances: Disturbances, *, in_bucket: bool) -> None:
        start, before = Start(), disturbances.events.copy()
        kinds = [disturbances.kill, disturbances.kill, disturbances.end]
        kinds += [disturbances.fill_disk] if self._disk.mounted else []
        kinds += disturbances.of_link("store") if in_bucket else []
        disturb = self._draw.choice(kinds)
        if disturb == disturbances.fill_disk and self._draw.random() < 0.5:
            disturb(start)
        if not self._disk.mounted and self._draw.random() < 0.2:
            command, start.codes = replace(command, largest_file=SMALL_FILE), {0, 74}
            disturbances.events["files may not grow"] += 1
        process = self._runner.start(command)
        start.group = [process]
        self._wait_for_files(process)
        disturb(start)
        if self._draw.random() < 0.3:
            time.sleep(self._draw.uniform(0, 0.2))
            disturbances.kill_all(start)
        self._runner.check_end(command, process, start.codes, start.suspects)
        start.mend()
        for kind, times in (disturbances.events - before).items():
            disturbances.events[kind] -= times
            disturbances.events[f"export: {kind}"] += times

    def _command(self, tokens: Place, name: str, output: Folder) -> Command:
        options = ["--to", name, "--shuffle", "3", "--val-fraction", "0.2"]
        options += [] if name in _UNSHARDED else ["--shard-size", "20"]
        return Command(["export", tokens.address, *options, "-o", output.address])

    def _wait_for_files(self, process: Process) -> None:
        """Wait until the export has written some more files, or for a random moment of it."""
        if self._draw.random() < 0.3:
            time.sleep(self._draw.uniform(0, 0.4))
            return
        goal = len(self._output.names()) + self._draw.randint(1, 6)
        while process.poll() is None and len(self._output.names()) < goal:
            time.sleep(0.002)
