"""Errors as JSON, so that one process raises what another has met."""

from __future__ import annotations

import imtok.errors
from imtok.errors import DiskError, ImtokError

# Words of gloo and NCCL where a process has gone. Both raise plain RuntimeErrors.
_GONE = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo", "NCCL")


def is_lost(error: Exception) -> bool:
    """Return whether an error says that another process has gone."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _GONE)


def described(error: Exception) -> dict[str, str]:
    """Describe an error in JSON; one that no user causes keeps its type in its text."""
    if isinstance(error, ImtokError):
        known = next(kind.__name__ for kind in type(error).__mro__ if hasattr(imtok.errors, kind.__name__))
        return {"type": known, "text": str(error)}
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return {"type": "TrainingError", "text": f"{type(error).__name__}: {reason}"}


def remade(description: dict[str, str], *, reported: bool) -> ImtokError:
    """Make an error as it was described on another process."""
    kind = getattr(imtok.errors, description["type"])
    error: ImtokError = kind.__new__(kind)
    Exception.__init__(error, description["text"])
    if isinstance(error, DiskError):
        error.finding, error.errno = description["text"], None
    error.reported = reported
    return error
