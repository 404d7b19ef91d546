"""What every command shares: where output goes, how errors and signals become exit codes."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer

from imtok.errors import ImtokError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")

_SECONDS_BETWEEN_LINES = 30.0


def out() -> Console:
    """Results: standard output."""
    from rich.console import Console

    return Console(highlight=False)


def err() -> Console:
    """Progress and messages: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A plain line on standard error."""
    err().print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line on standard error that stands out."""
    err().print(f"[yellow]note:[/] {_escaped(text)}", soft_wrap=True)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a user can cause into one line and an exit code, never a traceback.

    What nobody foresaw is also told in one line; IMTOK_TRACEBACK=1 shows where it happened.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):  # Typer's own way to end a command
            raise
        except ImtokError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("stopped; what was committed stays, the same command goes on", Interrupted.exit_code)
        except BrokenPipeError:
            # The reader of a pipe has gone, as with `| head`; Python's own flush at exit would complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}; check the path and its permissions", 1)
        except MemoryError:
            _fail("out of memory; try a smaller --batch-size or fewer --workers", 1)
        except Exception as error:
            if os.environ.get("IMTOK_TRACEBACK"):
                raise
            if "out of memory" in str(error).lower():
                _fail("the device is out of memory; try a smaller --batch-size", 1)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            _fail(f"unforeseen: {text}; set IMTOK_TRACEBACK=1 to see where, and please report it", 1)

    return wrapped


def _fail(text: str, code: int) -> NoReturn:
    err().print(f"[bold red]error:[/] {_escaped(text)}", soft_wrap=True)
    raise typer.Exit(code) from None


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM or Ctrl-C came; after the second Ctrl-C nothing is waited for."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:  # noqa: ARG001  (the signature of a handler)
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(description: str, unit: str = "images") -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, elsewhere a line twice a minute; the function takes (done, total or None)."""
    if not err().is_terminal:
        yield _sparse_lines(description, unit)
        return
    with _progress(unit) as progress:
        task = progress.add_task(description, total=None)

        def update(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield update


def _sparse_lines(description: str, unit: str) -> Callable[[int, int | None], None]:
    said = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
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


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
