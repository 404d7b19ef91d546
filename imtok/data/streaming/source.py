"""The contract between a stream and its storage: shards by number, each read whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from imtok.errors import SourceError


class ShardFailure(SourceError):
    """A shard that could not be read after the last try: `name` is its redacted URL, `reason` says why.

    `advice` says what a person may do about it; only the text of the error has it.
    """

    def __init__(self, name: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{name}: {reason}; {advice}" if advice else f"{name}: {reason}")
        self.name = name
        self.reason = reason


# The words of a stop while shards are read; once a run has trained, its loop says what was saved in place of them.
STOPPED = "on request, before the first step; run the same command again"


def never() -> bool:
    """Return False: a read with this as `should_stop` goes on to its end."""
    return False


class ShardSource(Protocol):
    """Shards in a fixed order. Several threads may read at once."""

    @property
    def names(self) -> Sequence[str]:
        """Redacted URLs of the shards, each once; the order is the same in every process."""

    def read(self, number: int, should_stop: Callable[[], bool] = never) -> Sequence[tuple[str, bytes]]:
        """Read the images of one whole shard: keys, as `<shard stem>/<member name>`, and encoded images.

        There are none where all images of the shard are held out. Raises ShardFailure after the last try, and where
        the shard holds no image at all, and Interrupted soon after `should_stop` has said so.
        """
