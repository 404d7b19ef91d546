"""SIGTERM and Ctrl-C end a command at once, from its first imports on, with a line that says what was saved.

Commands that have something to save take the signals over while they work. All others save nothing, so no process has
to wait for its threads, and no library can swallow an exception.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

EXIT_CODE = 75

NOT_BEGUN = "nothing was begun; run the same command again"
NOTHING_SAVED = "nothing was saved; run the same command again"
GOES_ON = "the same command resumes from what was saved"

_outcome = NOT_BEGUN


def end_on_signals() -> None:
    """Let SIGTERM and Ctrl-C end this process by `end_now`, until another handler takes over."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end_now())


def say_when_stopped(outcome: str) -> None:
    """Set the words about a stop from here on."""
    global _outcome
    _outcome = outcome


def outcome() -> str:
    """Say what a stop at this moment means."""
    return _outcome


def end_now(*_: Any) -> NoReturn:
    """End this process without waiting for anything; what imtok writes is whole or not there at all."""
    # A bar that is on the terminal hides the cursor and stands in the last line.
    bar = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):  # where nobody reads it
        os.write(2, f"{bar}stopped: on request; {_outcome}\n".encode())
    os._exit(EXIT_CODE)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end this process within the block even while a library waits outside Python.

    A handler in Python would wait for the library's return. Nothing is said, and nothing can have been begun.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
