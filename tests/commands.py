"""The real command line in processes of its own, which begin with imtok imported and get signals at exact moments."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path


def forked() -> ForkServerContext:
    """Return the maker of processes that begin with torch and imtok loaded: a start takes a tenth of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imtok.encoding.job", "imtok.cli.encode"])
    return context


@dataclass(frozen=True)
class Moment:
    """The `count`-th time that a process is about to do `event`, an audit event, with `name` in one of its words."""

    event: str
    name: str
    count: int
    number: int  # the signal that the process then gets


class Command:
    """An `imtok` command that works in a process of its own.

    `largest_file` is the number of bytes beyond which the system refuses to let a file grow, as a full disk would.
    With `dies_of_it` the system ends the process there instead, in the middle of its write.
    """

    def __init__(
        self,
        *words: object,
        log: Path,
        moment: Moment | None = None,
        largest_file: int | None = None,
        dies_of_it: bool = False,
    ) -> None:
        self.log = log
        limit = (largest_file, dies_of_it) if largest_file is not None else None
        self._process = forked().Process(target=_run, args=([*map(str, words)], log, dict(os.environ), moment, limit))
        self._process.start()
        self.pid = int(self._process.pid or 0)

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, seconds: float = 600) -> int:
        """Wait for the end and return the exit code, which is negative after a signal."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"still at work after {seconds} seconds: {self.text}")
        return code

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.is_alive()

    def is_stopped(self) -> bool:
        """Return whether SIGSTOP holds the process."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def _run(
    words: list[str], log: Path, environment: dict[str, str], moment: Moment | None, limit: tuple[int, bool] | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if moment is not None:
        _signal_at(moment)
    if limit is not None:
        size, dies = limit
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if dies else signal.SIG_IGN)
    from imtok.__main__ import main

    sys.argv = ["imtok", *words]
    main()


def _signal_at(moment: Moment) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == moment.event and any(moment.name in str(each) for each in arguments):
            seen += 1
            if seen == moment.count:
                os.kill(os.getpid(), moment.number)

    sys.addaudithook(hook)
