"""Members of an archive, such as a tar or a zip file, and the images among them.

A reader of archives adds every member in its order. A link is resolved within the archive: relative names are
normalised, chains and linked folders are followed. A symbolic link takes the last member of its target's name. A hard
link takes the last one before itself, and the first one after itself where none is before. All that bears an image's
name becomes an image or a `LostImage`; only hidden members are ignored, with a note.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

from imtok.counted import counted
from imtok.data.containers import Container, LostImage, SourceImage, as_text, unreadable
from imtok.data.kinds import FileKind, is_hidden, kind_of
from imtok.data.reading import Reading
from imtok.errors import ImageError, SourceError

LARGEST_UNPACKED = 2**30  # bytes; what claims more is no image but fills the memory

# Longer ones are neither a class number or name, nor a record of one image.
_BESIDE_BYTES = {".cls": 4096, ".json": 2**20}
_FOLLOWED = 40  # links in a chain, as many as Linux follows


class Part(Protocol):
    """The place of a member's bytes in its archive."""

    @property
    def size(self) -> int:
        """Bytes of the member, unpacked."""

    def read(self, address: str) -> bytes:
        """Read the bytes from the archive; raises OSError, SourceError, or ImageError for damage of this member."""


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """One image of an archive, with what lies beside it under its name."""

    key: str
    address: str  # of the archive
    part: Part
    parts_beside: tuple[tuple[str, Part], ...] = ()  # by suffix

    @property
    def size(self) -> int:
        """Its bytes, unpacked."""
        return self.part.size

    def read(self) -> bytes:
        """Read its bytes; raises SourceError where the archive cannot be read, ImageError for damage of this image."""
        try:
            return self.part.read(self.address)
        except OSError as error:
            raise unreadable(self.address, error) from error

    def beside(self, suffix: str) -> bytes | None:
        """Read the member beside it with this suffix; None where there is none or it is too long."""
        part = dict(self.parts_beside).get(suffix)
        if part is None or part.size > _BESIDE_BYTES.get(suffix, 0):
            return None
        try:
            return part.read(self.address)
        except OSError as error:
            raise unreadable(self.address, error) from error
        except ImageError:
            return None


@dataclass(frozen=True, slots=True)
class Lost:
    """In place of a part: a member whose bytes cannot be had."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Link:
    target: str
    hard: bool


class Members:
    """All members of an archive, in order."""

    def __init__(self, address: str, reading: Reading) -> None:
        self._address, self.rules = address, reading.rules
        self._members: list[tuple[str, FileKind, Part | Lost | _Link]] = []

    def add(self, name: str, part: Part | Lost, head: Callable[[], bool] | None = None) -> None:
        """Add a file; `head` finds by its first bytes whether it is an image, and is called for unknown suffixes."""
        name = name.removeprefix("./")
        kind = kind_of(name, self.rules)
        if kind == "unknown" and self.rules > 1 and head is not None and not is_hidden(name) and head():
            kind = "image"
        self._members.append((name, kind, part))

    def add_special(self, name: str, part: Part | Lost) -> None:
        """Add a member that rules 1 pass over: a sparse file, or what is no file."""
        if self.rules > 1:
            self.add(name, part)

    def add_link(self, name: str, target: str, *, hard: bool) -> None:
        """Add a link; the target of a hard link is the full name of a member, that of a symbolic one is relative."""
        name = name.removeprefix("./")
        # GNU tar makes a hard link to itself of a file that its command line names twice.
        if self.rules == 1 or (hard and _normal(name) == _normal(target)):
            return
        self._members.append((name, kind_of(name, self.rules), _Link(target, hard)))

    def __len__(self) -> int:
        return len(self._members)

    def container(self, size: int, problem: str | None) -> Container:
        """Return the images among the members, with notes about what is ignored."""
        beside = self._parts_beside()
        images: list[SourceImage] = []
        hidden, nested = [], []
        for index, (name, kind, _) in enumerate(self._members):
            if kind == "image" and self._is_hidden(name):
                hidden.append(name)
            elif kind == "image":
                images.append(self._image(index, name, beside))
            elif kind in ("container", "compressed") and not is_hidden(name):
                nested.append(name)
        return Container(size, tuple(images), problem, self._notes(hidden, nested), files=self._files())

    def _is_hidden(self, name: str) -> bool:
        return is_hidden(name) if self.rules > 1 else name.rpartition("/")[2].startswith(".")

    def _image(self, index: int, name: str, beside: dict[str, dict[str, Part]]) -> SourceImage:
        part = self._part(index)
        key = _text(name)
        if isinstance(part, Lost):
            return LostImage(key, self._address, part.reason, part.detail)
        if not beside:
            return ArchiveImage(key, self._address, part)
        return ArchiveImage(key, self._address, part, tuple(_beside(name, beside)))

    def _part(self, index: int) -> Part | Lost:
        """Return the place of a member's bytes; links are followed."""
        for _ in range(_FOLLOWED):
            name, _kind, entry = self._members[index]
            if not isinstance(entry, _Link):
                return entry
            target = (
                entry.target if entry.hard else self._resolved(posixpath.join(posixpath.dirname(name), entry.target))
            )
            if target is None or (entry.target.startswith("/") and not entry.hard):
                return Lost("link out of the archive", _text(entry.target))
            found = [one for one in self._where.get(_normal(target), ()) if one != index]
            if not found:
                return Lost("link to nothing", _text(entry.target))
            before = [one for one in found if one < index]
            index = (before[-1] if before else found[0]) if entry.hard else found[-1]
        return Lost("link in a loop", _text(self._members[index][0]))

    def _resolved(self, path: str) -> str | None:
        """Normalise a path, following links of its folders; None where it leaves the archive."""
        waiting, done, followed = path.split("/")[::-1], list[str](), 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                if not done:
                    return None
                done.pop()
            elif part not in ("", "."):
                done.append(part)
                link = self._folder_links.get("/".join(done)) if waiting else None
                if link is not None:
                    followed += 1
                    if link.startswith("/") or followed > _FOLLOWED:
                        return None
                    done.pop()
                    waiting += link.split("/")[::-1]
        return "/".join(done)

    @cached_property
    def _where(self) -> dict[str, list[int]]:
        """Members by normalised name."""
        where: dict[str, list[int]] = {}
        for index, (name, _, _) in enumerate(self._members):
            where.setdefault(_normal(name), []).append(index)
        return where

    @cached_property
    def _folder_links(self) -> dict[str, str]:
        return {
            _normal(name): entry.target
            for name, _, entry in self._members
            if isinstance(entry, _Link) and not entry.hard
        }

    def _parts_beside(self) -> dict[str, dict[str, Part]]:
        """Members that may lie beside an image: by suffix, then by name without it."""
        found: dict[str, dict[str, Part]] = {}
        for index, (name, kind, _) in enumerate(self._members):
            if kind != "other":
                continue
            suffix = name[name.rfind(".") :]
            suffix = suffix if self.rules == 1 else suffix.lower()
            if suffix in _BESIDE_BYTES and not isinstance(part := self._part(index), Lost):
                found.setdefault(suffix, {})[name[: -len(suffix)]] = part
        return found

    def _files(self) -> dict[str, Callable[[], bytes]]:
        """Readers of the file that describes all images of an archive; the last of its name counts."""
        parts = [part for name, _, part in self._members if name == "dataset.json"]
        if not parts or isinstance(parts[-1], Lost | _Link):
            return {}
        return {"dataset.json": partial(_read_file, self._address, parts[-1])}

    def _notes(self, hidden: list[str], nested: list[str]) -> tuple[str, ...]:
        notes = []
        if nested and self.rules > 1:
            what = counted(len(nested), "archive or Parquet file", "archives or Parquet files")
            notes.append(
                f"{what} inside, first {_text(nested[0])}: not read; unpack the outer one and give the inner ones"
            )
        if hidden and self.rules > 1:
            notes.append(
                f"{counted(len(hidden), 'hidden image', 'hidden images')} inside, first {_text(hidden[0])}: ignored"
            )
        return tuple(notes)


def _beside(name: str, parts: dict[str, dict[str, Part]]) -> Iterator[tuple[str, Part]]:
    """Members beside an image: under its whole stem, or under WebDataset's, which ends at the first dot."""
    base = name.rpartition("/")[2]
    lead = name[: len(name) - len(base)]
    whole, first = lead + posixpath.splitext(base)[0], lead + (base.split(".", 1)[0] or base)
    for suffix, by_stem in parts.items():
        part = by_stem.get(whole) or by_stem.get(first)
        if part is not None:
            yield suffix, part


def _normal(name: str) -> str:
    """Return a member's name without what does not distinguish it, such as a leading slash or `./`."""
    return posixpath.normpath(name).lstrip("/") if name else ""


def _text(name: str) -> str:
    return name if name.isascii() else as_text(name)


def _read_file(address: str, part: Part) -> bytes:
    """Read a member; raises SourceError where that cannot be done."""
    try:
        return part.read(address)
    except OSError as error:
        raise unreadable(address, error) from error
    except ImageError as error:
        raise SourceError(f"{address}: dataset.json is damaged ({error})") from error
