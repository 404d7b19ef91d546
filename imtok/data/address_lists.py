"""Lists of images: a text with a path or a URL on each line, or with a NUL after each as `find -print0` writes.

A line may give the image's key after a tab. Without one, the key of a relative path is the path itself, that of an
absolute path goes without its first slash, and that of a URL is its host, or bucket, and its path. So a key depends on
its own line alone, and a list may grow.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

from imtok.data.addresses import REMOTE_SCHEMES, is_remote, plain_address, redacted, scheme_of
from imtok.data.containers import UNKNOWN_SIZE, LostImage, as_text, is_unsafe, unreadable
from imtok.data.file_list import GrowingFileList, Place
from imtok.data.kinds import container_kind_of
from imtok.data.pixels.formats import HEAD_BYTES, looks_like_image
from imtok.data.reading import Reading
from imtok.data.scanning import Found, kind_by_rules
from imtok.data.storage import storage_of
from imtok.errors import SourceError

SUFFIX = ".txt"  # of a list that is named without a leading @
_CHUNK_BYTES = 2**16
_LONGEST_LINE = 2**16
_MOST_PLACES = 2**16  # that are kept; addresses beyond these are kept as they are
_NOWHERE = Place("", "")
_SPECIAL = re.compile(rb"[\t\r\0?#@%]")  # what a plain URL has not, with a key or without


class Line(NamedTuple):
    """One line of a list."""

    number: int  # from 1
    address: str
    key: str  # empty where none is given


class Block(NamedTuple):
    """Lines of a list that follow each other, as they are written."""

    number: int  # of the first one
    lines: Sequence[bytes]
    end: bytes  # of each line


@dataclass(frozen=True)
class AddressList:
    """A list of paths and URLs; relative paths begin at the folder `base`."""

    name: str  # for messages
    base: str
    open: Callable[[], BinaryIO]

    @classmethod
    def of_file(cls, path: str) -> AddressList:
        """Take a file of this machine, whose relative paths begin at its own folder."""
        return cls(path, os.path.dirname(path), lambda: Path(path).open("rb"))  # noqa: PTH120

    @classmethod
    def of_stream(cls, stream: BinaryIO, name: str = "standard input") -> AddressList:
        """Take a stream that can be read once, whose relative paths begin at the current folder."""
        with tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(stream, kept)
            kept.flush()
            descriptor = os.dup(kept.fileno())

        def opened() -> BinaryIO:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return os.fdopen(os.dup(descriptor), "rb")

        found = cls(name, "", opened)
        weakref.finalize(found, os.close, descriptor)
        return found

    def blocks(self) -> Iterator[Block]:
        """Read the lines, many at once; raises SourceError where this is no list."""
        try:
            with self.open() as file:
                yield from self._blocks(file)
        except OSError as error:
            raise unreadable(self.name, error) from error

    def lines(self, block: Block) -> Iterator[Line]:
        """Read the lines of a block that are not empty; raises SourceError where one is none."""
        for number, data in enumerate(block.lines, block.number):
            if line := self._line(number, data, block.end):
                yield line

    def _blocks(self, file: BinaryIO) -> Iterator[Block]:
        first = file.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        end = b"\0" if b"\0" in first else b"\n"
        if end == b"\0" and first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SourceError(f"{self.name}: in UTF-16; write it as UTF-8")
        if kind := container_kind_of("", first):
            raise SourceError(f"{self.name}: a {kind} file and no list; give it without @")
        number, rest, chunk = 1, b"", first
        while chunk:
            *whole, rest = (rest + chunk).split(end)
            if len(rest) > _LONGEST_LINE:
                raise SourceError(
                    f"{self.name}: a line of more than {_LONGEST_LINE} bytes; give a path or URL on each line"
                )
            if whole:
                yield Block(number, whole, end)
            number += len(whole)
            chunk = file.read(_CHUNK_BYTES)
        if rest:
            yield Block(number, [rest], end)

    def _line(self, number: int, data: bytes, end: bytes) -> Line | None:
        if end == b"\0":
            return Line(number, os.fsdecode(data), "") if data else None
        address, _, key = os.fsdecode(data.removesuffix(b"\r")).partition("\t")
        if key and not address:
            raise SourceError(f"{self.name}: line {number}: begins with a tab; a path or URL stands before the key")
        if key and is_unsafe(key):
            raise SourceError(
                f"{self.name}: line {number}: the key {as_text(key)} would leave its folder; give another"
            )
        return Line(number, address, key) if address else None


def add_list(addresses: AddressList, reading: Reading, files: GrowingFileList, *, remote: bool) -> Found:
    """Add the images of a list to the files, and return its containers; raises SourceError, naming the line.

    URLs are refused unless `remote`.
    """
    adding = _Adding(addresses, reading, files, remote)
    count = missing = 0
    first_missing = ""
    for block in addresses.blocks():
        if adding.add_plain(block):
            count += len(block.lines)
            continue
        for line in addresses.lines(block):
            count += 1
            if not adding.add(line):
                missing, first_missing = missing + 1, first_missing or line.address
    if not count:
        raise SourceError(f"{addresses.name}: holds no path and no URL; write one on each line")
    if missing == count:
        where = f"relative paths begin at {addresses.base or 'the current folder'}"
        raise SourceError(
            f"{addresses.name}: none of its {count} paths exists, first {as_text(first_missing)}; {where}"
        )
    return adding.found


class _Adding:
    """The lines of one list, added one after the other."""

    def __init__(self, addresses: AddressList, reading: Reading, files: GrowingFileList, remote: bool) -> None:
        self._list, self._reading, self._files, self._remote = addresses, reading, files, remote
        self.found = Found()
        self._places: dict[tuple[str, str], Place] = {}

    def add_plain(self, block: Block) -> bool:
        """Add a block of nothing but plain URLs of images all at once; returns False where it holds anything else."""
        text = b"\n".join(block.lines)
        start = text.find(b"://") + 3
        scheme = text[:start].decode("ascii", "replace")
        plain = (
            self._remote
            and scheme[:-3] in REMOTE_SCHEMES
            and text.isascii()
            and not _SPECIAL.search(text)
            and text.count(b"\n" + text[:start]) == len(block.lines) - 1 == text.count(b"\n")
        )
        if not plain:
            return False
        names = [line[start:].decode() for line in block.lines]
        kinds = {kind_by_rules(f"x{suffix}", self._reading) for suffix in {name[name.rfind(".") :] for name in names}}
        if kinds != {"image"}:
            return False
        self.found.urls = True
        place = self._places.setdefault(("", scheme), Place("", scheme))
        self._files.add_folder(place, "", names, [UNKNOWN_SIZE] * len(names))
        return True

    def add(self, line: Line) -> bool:
        """Add what a line names; returns False where nothing is there."""
        if "://" not in line.address:
            return self._add_local(line, line.address)
        try:
            address = plain_address(line.address.strip())
            storage_of(address)
        except SourceError as error:
            raise SourceError(f"{self._list.name}: line {line.number}: {error}") from None
        if not is_remote(address):
            return self._add_local(line, address)
        if not self._remote:
            raise self._error(line, "a URL; remote images are read by encode alone, copy them here")
        self._add_remote(line, address)
        return True

    def _add_remote(self, line: Line, address: str) -> None:
        shown = redacted(address)
        place = shown.partition("://")[2]
        name = unquote(place) if scheme_of(address) in ("http", "https") else place
        if name.endswith("/"):
            raise self._error(line, "a folder; give it as a SOURCE of its own")
        kind = kind_by_rules(name, self._reading)
        if kind == "container":
            self.found.containers.append((address, container_kind_of(name)))
        elif kind in ("image", "unknown"):
            self.found.urls = True
            self._add_image(line.key or name, address, UNKNOWN_SIZE)
        else:
            self.found.ignored += 1

    def _add_local(self, line: Line, path: str) -> bool:
        place = os.path.join(self._list.base, path)  # noqa: PTH118  (a Path per line is slow for millions)
        kind = kind_by_rules(path, self._reading)
        if kind in ("other", "compressed"):
            self.found.ignored += 1
            return True
        try:
            facts = os.stat(place)  # noqa: PTH116
        except OSError:
            if kind == "container":
                raise self._error(line, "does not exist; check the path") from None
            lost = LostImage(as_text(line.key or _key(path, place)), place, "does not exist", "no such file")
            self._files.add_object(lost)
            return False
        if not stat.S_ISREG(facts.st_mode):
            raise self._error(line, "no file; give folders as a SOURCE of their own")
        if kind == "container":
            self.found.containers.append((place, container_kind_of(path)))
        elif kind == "image" or looks_like_image(storage_of(place).read(place, 0, HEAD_BYTES)):
            self._add_image(line.key or _key(path, place), place, facts.st_size)
        else:
            self.found.ignored += 1
        return True

    def _add_image(self, key: str, address: str, size: int) -> None:
        """Add an image, whose key and address mostly end in the same folders and name."""
        shown = redacted(address)  # before a signature
        cut = len(key)
        if not shown.endswith(key):
            common = _common_ending(key, shown)
            cut = len(key) - key.find("/", len(key) - common) - 1 if "/" in key[len(key) - common :] else 0
        prefix, folder = key[: len(key) - cut], shown[: len(shown) - cut] if cut else ""
        place = self._places.get((prefix, folder), _NOWHERE)
        if place is _NOWHERE and cut and len(self._places) < _MOST_PLACES:
            place = self._places[prefix, folder] = Place(as_text(prefix), folder)
        self._files.add(place, key if place is _NOWHERE else key[len(prefix) :], address, size)

    def _error(self, line: Line, what: str) -> SourceError:
        return SourceError(f"{self._list.name}: line {line.number}: {redacted(as_text(line.address))}: {what}")


def _common_ending(one: str, other: str) -> int:
    """Count the letters at the end that two texts share."""
    pairs = enumerate(zip(reversed(one), reversed(other), strict=False))
    return next((count for count, (left, right) in pairs if left != right), min(len(one), len(other)))


def _key(path: str, place: str) -> str:
    """Return the key of a path of this machine."""
    if ".." in path.split("/"):
        path = os.path.abspath(place)  # noqa: PTH100
    elif "//" in path or "/./" in f"/{path}":
        path = os.path.normpath(path)
    return path.lstrip("/")
