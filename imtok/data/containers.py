"""The two things that sources of images consist of: an image not yet read, and a container of many images.

A reader of containers, such as that of tars, is a function from an address to a `Container`. It raises OSError where
the file cannot be read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from imtok.data.addresses import redacted, scheme_of
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.storage import storage_of
from imtok.data.streaming.source import never
from imtok.data.streaming.transfers import Patience, patiently, unless_missing
from imtok.errors import ImageError, SourceError

UNKNOWN_SIZE = -1  # bytes of an image that only reading it shows
BESIDE_BYTES = 2**20  # a longer file beside an image is no label


class SourceImage(Protocol):
    """One image of a folder or a container, not yet read."""

    @property
    def key(self) -> str:
        """Its name in the folder or container."""

    @property
    def address(self) -> str:
        """The file that holds its bytes."""

    @property
    def size(self) -> int:
        """Its bytes, or UNKNOWN_SIZE."""

    def read(self) -> bytes:
        """Read its bytes; raises OSError or SourceError where they cannot be had."""

    def beside(self, suffix: str) -> bytes | None:
        """Read what lies beside it under its name, such as `.cls`; None where nothing does or it is no small file.

        Raises SourceError where the container cannot be read.
        """


@dataclass(frozen=True, slots=True)
class LostImage:
    """What bears an image's name but cannot be read, such as a link to nothing: it is skipped with a reason."""

    key: str
    address: str
    reason: str  # a few words, counted as they are
    detail: str
    size: int = 0  # bytes

    def read(self) -> bytes:
        """Raise ImageError with the reason."""
        raise ImageError(self.reason, self.detail)

    def beside(self, suffix: str) -> bytes | None:  # noqa: ARG002
        """Return None, as nothing is made of it."""
        return None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file of its own."""

    key: str
    address: str = field(repr=False)  # may hold a signature
    size: int  # bytes, or UNKNOWN_SIZE

    def read(self) -> bytes:
        """Read the file; raises OSError."""
        return storage_of(self.address).read(self.address)

    def beside(self, suffix: str) -> bytes | None:
        """Read the file with this suffix beside it, in lower or upper case; None where there is none or it is long.

        On other machines only stores are asked. Raises SourceError where a store does not answer.
        """
        if scheme_of(self.address) in ("http", "https"):  # nothing lists what lies there
            return None
        folder, slash, name = self.address.rpartition("/")
        for base in dict.fromkeys((name.rpartition(".")[0], name.split(".", 1)[0])):
            for ending in (suffix, suffix.upper()):
                data = read_small(f"{folder}{slash}{base}{ending}") if base else None
                if data is not None:
                    return data
        return None


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image whose bytes are in memory, as those of a stream."""

    key: str
    address: str  # of its shard
    data: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.data)

    def read(self) -> bytes:
        """Return its bytes."""
        return self.data

    def beside(self, suffix: str) -> bytes | None:  # noqa: ARG002
        """Return None, as a stream keeps images alone."""
        return None


def nothing_to_close() -> None:
    """Do nothing, as for a container that was read where it lies."""


@dataclass(frozen=True)
class Container:
    """The images of one file, and what is wrong with the file, if anything."""

    size: int  # bytes of the file
    images: Sequence[SourceImage]
    problem: str | None  # None for a whole file; `images` then holds what lies before the damage
    notes: tuple[str, ...] = ()  # what a person has to know and is no damage
    class_names: tuple[str, ...] = ()  # names that the file itself gives to its class numbers
    files: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)  # readers of other files at its root
    salvageable: bool = True  # False where the damage hides all images, so that none of them can be listed
    # Lets go of a copy that was fetched from another machine, after which no image can be read.
    close: Callable[[], None] = field(default=nothing_to_close, compare=False, repr=False)

    @cached_property
    def duplicates(self) -> tuple[str, ...]:
        """Keys that occur more than once, sorted; unsafe ones are left out, as nothing is made of them."""
        times = Counter(image.key for image in self.images if not is_unsafe(image.key))
        return tuple(sorted(key for key, count in times.items() if count > 1))


def read_small(address: str, longest: int | None = BESIDE_BYTES) -> bytes | None:
    """Read a file that may be there; None where it is not, or is longer than `longest` bytes.

    Raises SourceError where another machine does not say whether it is there.
    """
    storage = storage_of(address)
    try:
        if isinstance(storage, RemoteStorage):
            data = patiently(lambda: unless_missing(lambda: storage.read(address)), Patience(), never)
        else:
            data = storage.read(address, 0, -1 if longest is None else longest + 1)
    except RemoteError as error:
        raise unreadable(address, error) from None
    except OSError:
        return None
    return data if data is not None and (longest is None or len(data) <= longest) else None


def is_unsafe(key: str) -> bool:
    """Return whether a name would leave the folder it is unpacked in, or can be no file's name."""
    return key.startswith("/") or ".." in key.split("/") or "\0" in key


def unreadable(address: str, error: OSError) -> SourceError:
    """Return the error for a file that cannot be read: that may pass, and says nothing about what it holds."""
    if isinstance(error, RemoteError):
        return SourceError(f"{redacted(address)}: {error.reason}; {error.advice}")
    return SourceError(f"{address}: cannot be read ({error.strerror or error}); check it and its permissions")


def as_text(name: str) -> str:
    """Return a file name as text that can be written as UTF-8; bytes that are not UTF-8 are spelled out."""
    try:
        data = os.fsencode(name)
    except UnicodeEncodeError:  # text out of a tar, where the locale knows ASCII alone
        data = name.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "backslashreplace")
