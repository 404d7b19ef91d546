"""Shared by all commands: output, and exit codes for errors and signals."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TextIO, TypeVar

import typer

from imtok.errors import ConfigError, DiskError, ImtokError, Interrupted, SlowerWarning, is_disk_error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")

SEVERITY_STYLES = {"problem": "bold red", "warning": "bold yellow", "hint": "bold cyan"}  # of findings, everywhere
_SECONDS_BETWEEN_LINES = 30.0


def out() -> Console:
    """Results: standard output."""
    return _console(stderr=False)


def err() -> Console:
    """Progress and messages: standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Pipeable(Console):
        """Ends in peace when its reader has gone, as with `| head`; rich's own takes that for a failure."""

        def on_broken_pipe(self) -> None:
            _silence_stdout()
            raise SystemExit(0)

    return Pipeable(stderr=stderr, highlight=False, emoji=False)


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
    """Print rich markup: wrapped between words in a terminal, never in a file or a pipe."""
    console.print(markup, soft_wrap=not console.is_terminal)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that a user can cause into one line and an exit code, never a traceback.

    Unforeseen errors end in one line too; IMTOK_TRACEBACK=1 shows the traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _warnings_as_notes():
                return command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):  # Typer's own way to end a command
            raise
        except ImtokError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("on request; the same command goes on from what was saved", Interrupted.exit_code)
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(0) from None
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
    """Show imtok's own warnings without file and line; show others as Python does."""
    original = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SlowerWarning):
            warn(str(message))
        else:
            original(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = original


def os_error(error: OSError) -> tuple[str, int]:
    """One line and an exit code for an error of the operating system."""
    place = f"{error.filename}: " if error.filename else ""
    if is_disk_error(error):
        return f"{place}{error.strerror or error}; make room or write elsewhere", DiskError.exit_code
    return f"{place}{error.strerror or error}; check the path and its permissions", 1


def launcher_number(name: str, default: int) -> int:
    """Read a number that a launcher such as torchrun puts in the environment."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"the environment's {name} is {text!r}, expected a number; unset it or start by torchrun")
    return int(text)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse the I and N of `--shard I/N`."""
    index, _, count = text.partition("/")
    if not (text.isascii() and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise typer.BadParameter(f"{text}: expected I/N with 0 <= I < N, for instance 0/8", param_hint="--shard")
    return int(index), int(count)


def _silence_stdout() -> None:
    """Python's own flush at exit would complain of the closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> NoReturn:
    stopped = code == Interrupted.exit_code
    label = "[bold yellow]stopped:[/]" if stopped else "[bold red]error:[/]"
    print_line(err(), f"{label} {escaped(text)}")
    raise typer.Exit(code) from None


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or Ctrl-C came; a second Ctrl-C ends the process at once."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:  # noqa: ARG001  (the signature of a handler)
        if came and number == signal.SIGINT:
            # Everything is written whole or not at all, so there is nothing to wait for.
            os.write(2, b"\nstopped: at once; the same command goes on from what was saved\n")
            os._exit(Interrupted.exit_code)
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ends_on_signals(should_stop: Callable[[], bool]) -> Iterator[None]:
    """SIGTERM or Ctrl-C end the block at once, by Interrupted: for work whose files are written whole or not at all.

    Use it inside `stop_on_signals`, whose function `should_stop` reports an earlier signal.
    """
    # An exception outside Exception, so that no library that tries this and then that takes it for its own.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if should_stop():
            raise KeyboardInterrupt
        yield
    except KeyboardInterrupt:
        raise Interrupted("on request; the same command begins anew") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(description: str, unit: str = "images") -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on a terminal, elsewhere a line twice a minute; yield a function of (done, total or None)."""
    if not err().is_terminal:
        yield _sparse_lines(description, unit)
        return
    with _progress(unit) as progress:
        task = progress.add_task(description, total=None)

        def update(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield update


def _sparse_lines(description: str, unit: str) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{description}: {done} of {total} {unit}" if total else f"{description}: {done} {unit}")

    return update


def _progress(unit: str) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
        console=err(),
        transient=True,
    )


def escaped(text: str, *, lines: bool = False) -> str:
    """Text for a rich console to show as it is: no markup, control characters spelled out; `lines` keeps line feeds.

    A configuration has line feeds on purpose; one in a file name would make two errors of one.
    """
    from rich.markup import escape

    return escape(printable(text, lines=lines))


def printable(text: str, *, lines: bool = False) -> str:
    """Spell out control characters; `lines` keeps line feeds."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else repr(c)[1:-1] for c in text)
