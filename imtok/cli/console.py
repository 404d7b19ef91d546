"""Shared by all commands: output, and exit codes for errors and signals."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TextIO, TypeVar

import typer

from imtok.errors import DiskError, ImtokError, ImtokWarning, Interrupted, is_disk_error
from imtok.processes import Processes, joined
from imtok.signals import NOTHING_SAVED, end_now, outcome, say_when_stopped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

P = ParamSpec("P")
R = TypeVar("R")

SEVERITY_STYLES = {"problem": "bold red", "warning": "bold yellow", "hint": "bold cyan"}  # of findings, everywhere
SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal

_lead = ""  # of each line of an error, where there are several processes and this is not the first

_consoles: dict[bool, tuple[TextIO, Console]] = {}  # by whether it is that of standard error


def out() -> Console:
    """Open standard output, for results."""
    if hasattr(sys.stdout, "rich_proxied_file"):  # a bar is shown on this terminal, and its console prints above it
        return err()
    return _console(sys.stdout, stderr=False)


def err() -> Console:
    """Open standard error, for progress and messages."""
    # While a bar is shown it stands before the stream.
    return _console(getattr(sys.stderr, "rich_proxied_file", sys.stderr), stderr=True)


def _console(stream: TextIO, *, stderr: bool) -> Console:
    """Return the one console of a stream: lines and bars of the same one never stand in each other's way."""
    from rich.console import Console

    known = _consoles.get(stderr)
    if known is None or known[0] is not stream:
        known = _consoles[stderr] = stream, Console(stderr=stderr, highlight=False, emoji=False)
    return known[1]


def say(text: str) -> None:
    """Print a plain line on standard error."""
    print_line(err(), escaped(text))


def warn(text: str) -> None:
    """Print a line on standard error that stands out."""
    print_line(err(), f"[yellow]note:[/] {escaped(text)}")


def print_result(text: str) -> None:
    """Print a plain line of results on standard output."""
    print_line(out(), escaped(text, lines=True))


def print_line(console: Console, markup: str) -> None:
    """Print a line of rich markup, wrapped between words on a terminal, never in a file or a pipe."""
    console.print(markup, soft_wrap=not console.is_terminal)


def facts_table(facts: Mapping[str, str]) -> Table:
    """Build a table without lines of names and values."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(value))
    return table


def reports_errors(command: Callable[P, R], *, stopped: str = NOTHING_SAVED) -> Callable[P, R]:
    """Turn every error into one line and an exit code; IMTOK_TRACEBACK=1 gives a traceback for an unforeseen one.

    `stopped` says what a stop by a signal means for this command.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        say_when_stopped(stopped)
        try:
            with _warnings_as_notes():
                return command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):  # Typer's own way to end a command
            raise
        except Interrupted as error:
            text = str(error).removeprefix("stopped ")
            # Work below a job knows that it was stopped, but not what the command has saved.
            _fail(text if "; " in text else f"{text}; {outcome()}", error.exit_code)
        except ImtokError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail(f"on request; {outcome()}", Interrupted.exit_code)
        except OSError as error:
            _fail(*os_error(error))
        except MemoryError:
            _fail("out of memory; try smaller batches or fewer workers", 1)
        except Exception as error:
            if os.environ.get("IMTOK_TRACEBACK"):
                raise
            if "out of memory" in str(error).lower():
                _fail("the device is out of memory; try smaller batches (--batch-size, --set batch_size=)", 1)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            _fail(f"unforeseen: {text}; set IMTOK_TRACEBACK=1 to see where, and please report it", 1)

    return wrapped


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show imtok's own warnings without the place in its code; all others as Python does."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, ImtokWarning):
            if not _lead:  # the first process has it too
                warn(str(message))
        else:
            before(message, category, *place, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def os_error(error: OSError) -> tuple[str, int]:
    """Return one line and an exit code for an error of the operating system."""
    place = f"{error.filename}: " if error.filename else ""
    if is_disk_error(error):
        return f"{place}{error.strerror or error}; make room or write elsewhere", DiskError.exit_code
    return f"{place}{error.strerror or error}; check the path and its permissions", 1


def parse_shard(text: str) -> tuple[int, int]:
    """Parse the I and N of `--shard I/N`."""
    index, _, count = text.partition("/")
    if not (text.isascii() and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise typer.BadParameter(f"{text}: expected I/N with 0 <= I < N, for instance 0/8", param_hint="--shard")
    return int(index), int(count)


def _fail(text: str, code: int) -> NoReturn:
    stopped = code == Interrupted.exit_code
    label = "[bold yellow]stopped:[/]" if stopped else "[bold red]error:[/]"
    print_line(err(), f"{label} {escaped(_lead + text)}")
    raise typer.Exit(code) from None


@contextmanager
def _signals_to(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Let `handler` receive SIGTERM and Ctrl-C within the block."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, previous)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or Ctrl-C came; a second Ctrl-C ends the process at once."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:  # noqa: ARG001  (the signature of a handler)
        if came and number == signal.SIGINT:
            end_now()
        came.append(number)

    with _signals_to(note):
        yield lambda: bool(came)


@contextmanager
def ends_on_signals(should_stop: Callable[[], bool]) -> Iterator[None]:
    """End the block at once, by Interrupted, on SIGTERM or Ctrl-C: for work that writes each file whole or not at all.

    Use it inside `stop_on_signals`, whose function `should_stop` reports an earlier signal.
    """
    try:
        # KeyboardInterrupt is outside Exception, so that no library catches it as a failure of its own.
        with _signals_to(signal.default_int_handler):
            if should_stop():
                raise KeyboardInterrupt
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"on request; {outcome()}") from None


@contextmanager
def ending_at_once(should_stop: Callable[[], bool]) -> Iterator[None]:
    """End the process at once on SIGTERM or Ctrl-C within the block, which has nothing to save.

    Use it inside `stop_on_signals`, whose function `should_stop` reports an earlier signal.
    """
    with _signals_to(end_now):
        if should_stop():
            end_now()
        yield


@contextmanager
def one_voice() -> Iterator[Processes]:
    """Let the processes that a launcher started meet, and let one of them print an error that all of them meet.

    After an error, signals are ignored: torchrun sends SIGTERM to the others as soon as one process has ended.
    """
    global _lead
    processes = Processes()
    try:
        with joined() as processes:
            _lead = f"rank {processes.rank}: " if processes.rank else ""
            yield processes
    except Exception as error:
        if processes.several:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            if getattr(error, "reported", False) or processes.reported_by_first(str(error)):
                raise typer.Exit(getattr(error, "exit_code", 1)) from error
        raise


@contextmanager
def progress_bar(description: str, unit: str = "images") -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on a terminal, elsewhere a line twice a minute; yield a function of (done, total or None)."""
    if not err().is_terminal:
        yield _sparse_lines(description, unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit)
    console = err()
    # Results for a pipe would otherwise go above the bar, as if they were lines for a person.
    to_bar = bool(sys.stdout and sys.stdout.isatty())
    with Progress(
        *columns, TimeRemainingColumn(compact=True), console=console, transient=True, redirect_stdout=to_bar
    ) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _sparse_lines(description: str, unit: str) -> Callable[[int, int | None], None]:
    printed_at = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= SECONDS_BETWEEN_LINES:
            printed_at = time.monotonic()
            say(f"{description}: {done} of {total} {unit}" if total else f"{description}: {done} {unit}")

    return update


def escaped(text: str, *, lines: bool = False) -> str:
    """Return text that a rich console shows as it is: without markup, with control characters spelled out.

    `lines` keeps line feeds. They belong to a configuration; in the name of a file one would make two errors of one.
    """
    from rich.markup import escape

    return escape(printable(text, lines=lines))


def printable(text: str, *, lines: bool = False) -> str:
    """Spell out control characters; `lines` keeps line feeds."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else repr(c)[1:-1] for c in text)
