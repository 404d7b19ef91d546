"""Standard output and error as the commands need them, whatever reads them and whatever their encoding is."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

_BLOCKS = str.maketrans("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉░▒▓─…−×━╸╺│→", ".:-=+*%#.:-=+*%.-*-.-x-  |>")
_ERRORS = "imtok.ascii"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace the signs that an encoding lacks: those of charts by ASCII of about their weight, others by "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_BLOCKS)
    return "".join(sign if sign.isascii() else "?" for sign in lost), error.end


codecs.register_error(_ERRORS, _in_ascii)


class _Pipe(io.FileIO):
    """A descriptor whose reader may leave, as `head` does: all that comes later is written to nowhere.

    The command itself runs to its end, so that what it makes is whole and its exit code says how it ended.
    """

    def write(self, data: Any, /) -> int:
        """Write bytes; once the reader has left, nowhere."""
        try:
            return super().write(data)
        except BrokenPipeError:
            _silence(self.fileno())
            return super().write(data)


def _silence(descriptor: int) -> None:
    """Send what is written to a descriptor nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def flush_output() -> OSError | None:
    """Write out what standard output still holds; return the error where the system refuses it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout.fileno())  # Python would fail once more when it flushes at its end
        return error
    return None


def prepare_streams() -> None:
    """Let standard output and error bear readers that leave, and signs that their encoding lacks."""
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)


def _prepared(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # closed by the shell, or the caller's own
        return stream
    stream.flush()
    buffer = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
    lines = stream.line_buffering or stream is sys.stderr
    return io.TextIOWrapper(buffer, stream.encoding, _ERRORS, line_buffering=lines)
