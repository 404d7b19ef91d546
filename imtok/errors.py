"""Errors as one tree; the command line catches its root and exits with its code.

ImtokError (1)
  ConfigError (1)      a configuration that cannot be used
  SourceError (1)      an input folder or tar that cannot be used
  ImageError (1)       one image that cannot be read: caught per image and recorded as a skip
  HubError (1)         a repository of the Hugging Face Hub that cannot be reached or used
  TokenizerError (1)   a tokenizer folder, or codes that do not fit it
  TokensError (1)      a token folder
  TrainingError (1)    a run folder, or a run that cannot continue
  TooManySkips (3)     all is committed, but more inputs were skipped than allowed
  DiskError (74)       the disk refused a write
  Interrupted (75)     stopped on request; the same command resumes

ImtokWarning: a warning for the person who runs imtok, which the command line shows as a note.
  SlowerWarning: given once: results are right but slower than they could be
  UnprotectedWarning: given once a file system: it lacks a call that protects what imtok writes
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
_DISK_ERRNOS = _FULL_ERRNOS | {errno.EFBIG, errno.EROFS, errno.EIO}


class ImtokError(Exception):
    """Base of every error a user can cause; its text is one line: what was found, what was expected, what to do."""

    exit_code = 1
    reported = False  # True where another process of the job prints the same error


class ConfigError(ImtokError):
    """A configuration that cannot be used."""


class SourceError(ImtokError):
    """An input folder or tar that cannot be used."""


class HubError(ImtokError):
    """A repository of the Hugging Face Hub that cannot be reached or used."""


class TokenizerError(ImtokError):
    """A tokenizer folder that cannot be used, or codes and images that do not fit the tokenizer."""


class TokensError(ImtokError):
    """A token folder that cannot be used."""


class TrainingError(ImtokError):
    """A run folder that cannot be used, or a training run that cannot continue."""


class ImageError(ImtokError):
    """An image that cannot be read; `reason` is a short word that ends up in the shard."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TooManySkips(ImtokError):
    """Everything is committed, but more inputs were skipped than `--max-skip` allows."""

    exit_code = 3


class DiskError(ImtokError):
    """The disk refused a write; nothing committed before is harmed.

    `finding` is the disk's error in short, `errno` its number; `full` is True where the disk only lacks room.
    """

    exit_code = 74

    def __init__(self, path: Path, finding: str, number: int | None = None) -> None:
        super().__init__(
            f"{path}: {finding}; make room or choose another disk, then run the same command again: what is committed "
            "stays"
        )
        self.finding = finding
        self.errno = number

    @property
    def full(self) -> bool:
        """True where the disk or the quota is full."""
        return self.errno in _FULL_ERRNOS


class Interrupted(ImtokError):
    """The job received a request to stop; the same command resumes it."""

    exit_code = 75


class LatentsError(ValueError):
    """Latents that have no code, as they are not finite; users do not cause it, so it is outside the tree."""


class ImtokWarning(RuntimeWarning):
    """Base of every warning that the command line shows as a note."""


class SlowerWarning(ImtokWarning):
    """A fast way does not work here; a slower one with the same results is taken."""


class UnprotectedWarning(ImtokWarning):
    """A file system lacks locks, hard links or a sync; imtok works without it."""


def is_disk_error(error: OSError) -> bool:
    """Say whether the disk is full, over quota, read-only or failing."""
    return error.errno in _DISK_ERRNOS


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or failing disk under `path` into a DiskError; other errors of the system name `path`."""
    try:
        yield
    except OSError as error:
        if is_disk_error(error):
            raise DiskError(path, error.strerror or str(error), error.errno) from error
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
