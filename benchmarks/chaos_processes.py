"""Real `imtok` commands in processes of their own, for `benchmarks/chaos.py`.

Most of a short command's time goes into importing torch. So most processes are forked from one that has imported it,
and run the command's own `main` from its first line on. The others are fresh ones, or work below torchrun.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
BROKEN_BY = "CHAOS_BROKEN_BY"  # a variable of the environment that names a module
_PRELOADED = ["imtok.encoding.job", "imtok.export.job", "imtok.cli.encode", "s3fs", "fsspec.implementations.http"]


@dataclass(frozen=True)
class Command:
    """One `imtok` command and the way in which it is started."""

    words: Sequence[str]
    kind: str = "forked"  # or fresh, or torchrun
    environment: dict[str, str] = field(default_factory=dict)  # beside that of this process
    ranks: int = 1  # of torchrun
    largest_file: int | None = None  # bytes, beyond which the system lets no file grow


class Process(Protocol):
    """A started command."""

    log: Path

    def pids(self) -> list[int]:
        """Return the processes that do the work."""

    def poll(self) -> int | None:
        """Return the exit code, None while the command works."""


def start(command: Command, log: Path) -> Process:
    """Start a command; what it prints goes into `log`."""
    log.touch()
    return _Forked(command, log) if command.kind == "forked" else _Fresh(command, log)


def state(pid: int) -> str:
    """Return the letter that the system has for the state of a process, nothing where it has ended."""
    with suppress(OSError):
        letter = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return "" if letter in "ZX" else letter
    return ""


def catches_signals(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM: before that, the interpreter itself still starts."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt"):
                return bool(int(line.split()[1], 16) & _SIGTERM_BIT)
    return False


def send(pid: int, number: int) -> bool:
    """Send a signal; False where the process had ended."""
    if not state(pid):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def stop(pid: int) -> bool:
    """Stop a process, and wait until it stands still; False where it ended first."""
    if not send(pid, signal.SIGSTOP):
        return False
    while (letter := state(pid)) not in ("", "T"):
        time.sleep(0.001)
    return letter == "T"


class _Forked:
    def __init__(self, command: Command, log: Path) -> None:
        self.log = log
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        environment = os.environ | command.environment
        self._process = context.Process(target=_run, args=(command, log, environment))
        self._process.start()

    def pids(self) -> list[int]:
        return [self._process.pid or 0] if self._process.is_alive() else []

    def poll(self) -> int | None:
        return self._process.exitcode


class _Fresh:
    def __init__(self, command: Command, log: Path) -> None:
        self.log = log
        self._torchrun = command.kind == "torchrun"
        launcher = [*_TORCHRUN, str(command.ranks)] if self._torchrun else [sys.executable]
        limit = command.largest_file
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [*launcher, "-m", "imtok", *command.words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | command.environment,
                preexec_fn=None if limit is None else lambda: _limit_files(limit),
            )

    def pids(self) -> list[int]:
        if not self._torchrun:
            return [self._process.pid] if self._process.poll() is None else []
        return [pid for path in Path("/proc").glob("[0-9]*") if self._is_rank(pid := int(path.name))]

    def _is_rank(self, pid: int) -> bool:
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            words = Path(f"/proc/{pid}/cmdline").read_text()
            return int(stat[1]) == self._process.pid and stat[0] != "Z" and "\0imtok\0" in words
        return False

    def poll(self) -> int | None:
        return self._process.poll()


def _run(command: Command, log: Path, environment: dict[str, str]) -> None:
    from imtok.signals import end_on_signals

    end_on_signals()
    os.environ.clear()
    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if command.largest_file is not None:
        _limit_files(command.largest_file)
    if BROKEN_BY in environment:
        importlib.import_module(environment[BROKEN_BY])
    from imtok.__main__ import main

    sys.argv = ["imtok", *command.words]
    main()


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
