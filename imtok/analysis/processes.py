"""Processes that count a share of the units each, and what passes between them and the one that started them.

A connection carries pickled messages: the work to a process, and back how many units are done, at last the tally or
the error that ended it. A process whose connection breaks ends by itself, so that none is left behind by a kill.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import Tally
from imtok.errors import ImtokError, TokensError
from imtok.tokens import TokenDataset

Count = Callable[[TokenDataset, Sequence[int], "Sampling | None", Callable[[int], None]], Tally]

_COMMAND = "from imtok.analysis.processes import main; main()"
_POLL_SECONDS = 0.1  # between looks at whether to stop


def count_in_processes(
    count: Count,
    tokens: TokenDataset,
    shares: Sequence[Sequence[int]],
    sampling: Sampling | None,
    update: Callable[[int], None],
) -> Tally:
    """Count the first share of places of `tokens.units` here, every other in a process of its own, and add up.

    `count` counts a share. `update` takes how many units are done, and may raise to end it all. Raises what a process
    raises.
    """
    with _started(count, tokens, shares[1:], sampling) as others:
        tally = count(tokens, shares[0], sampling, lambda done: update(done + others.hear(0)))
        while others.at_work:
            update(len(shares[0]) + others.hear(_POLL_SECONDS))
        for other in others.tallies:
            tally.merge(other)
    return tally


class _Others:
    """The other processes, as they are heard of."""

    def __init__(self, folder: str, shares: Mapping[Connection, int]) -> None:
        """`shares` is how many units each has to do."""
        self.folder, self._shares = folder, shares
        self.at_work = list(shares)
        self.tallies: list[Tally] = []
        self._done = dict.fromkeys(shares, 0)

    def hear(self, seconds: float) -> int:
        """Take in what they said, waiting so long at most for something; the units they have done."""
        for connection in wait(self.at_work, seconds):
            assert isinstance(connection, Connection)
            message = self._next(connection)
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, Tally):
                self.tallies.append(message)
                self.at_work.remove(connection)
                self._done[connection] = self._shares[connection]
            else:
                self._done[connection] = message
        return sum(self._done.values())

    def _next(self, connection: Connection) -> Any:
        try:
            message = connection.recv()
            while isinstance(message, int) and connection.poll():
                message = connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise _ended(self.folder) from error
        return message


def _ended(folder: str) -> TokensError:
    return TokensError(
        f"{folder}: a process that counted it was ended from outside, perhaps for want of memory; try fewer --workers"
    )


@contextmanager
def _started(
    count: Count, tokens: TokenDataset, shares: Sequence[Sequence[int]], sampling: Sampling | None
) -> Iterator[_Others]:
    processes: list[subprocess.Popen[bytes]] = []
    connections: list[Connection] = []
    try:
        for _ in shares:
            ours, theirs = Pipe()
            with theirs:
                connections.append(ours)
                processes.append(_process(theirs.fileno()))
        for connection, share in zip(connections, shares, strict=True):  # what is long waits until it is read
            try:
                connection.send((count, tokens, share, sampling))
            except (BrokenPipeError, ConnectionResetError) as error:
                raise _ended(str(tokens.folder)) from error
        yield _Others(str(tokens.folder), dict(zip(connections, map(len, shares), strict=True)))
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.kill()  # one that is done does not mind
            process.wait()


def _process(connection: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, str(connection)],
        pass_fds=[connection],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,  # Ctrl-C is for the one that started it
    )


def main() -> None:
    """What a process does from beginning to end; its argument is the number of its connection."""
    try:
        with Connection(int(sys.argv[1])) as connection:
            count, tokens, share, sampling = connection.recv()
            try:
                connection.send(count(tokens, share, sampling, connection.send))
            except ImtokError as error:
                connection.send(error)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        sys.exit(1)  # whoever wanted to know is gone
