"""SOURCE arguments: which images and tars a list of folders, tars and patterns names.

A key is an image's POSIX path relative to its folder, with its suffix. With several folders each key begins with
its folder's name. Lists are sorted by the bytes of their keys, so every machine sees the same order.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from imtok.data.images import SUFFIXES
from imtok.errors import SourceError


@dataclass(frozen=True)
class ImageFile:
    """An image in a folder."""

    key: str
    path: Path
    size: int  # bytes

    def read(self) -> bytes:
        """Its bytes."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class TarFile:
    """A tar of images; `name` is unique among the tars of a job."""

    name: str
    path: Path
    size: int  # bytes


@dataclass(frozen=True)
class Sources:
    """All that the SOURCE arguments name."""

    files: tuple[ImageFile, ...]
    tars: tuple[TarFile, ...]
    ignored: int  # files with other suffixes and links to nothing; hidden files are left uncounted
    ignored_tars: int = 0  # tars beside images

    @property
    def class_names(self) -> tuple[str, ...]:
        """Sorted top folders, where every image lies in one and there are two or more: class folders."""
        tops = {file.key.split("/", 1)[0] for file in self.files}
        in_folders = all("/" in file.key for file in self.files)
        return tuple(sorted(tops)) if in_folders and len(tops) > 1 else ()


def find_sources(arguments: Sequence[str | Path]) -> Sources:
    """Resolve folders, tars, single images and brace patterns such as `train-{000..099}.tar`.

    Raises SourceError, naming the argument, for what does not exist, holds no images, or cannot be told apart.
    """
    paths = [path for argument in arguments for path in _expand(str(argument))]
    folders = [path for path in paths if path.is_dir()]
    prefixes = _prefixes(folders)
    files: list[ImageFile] = []
    tars: list[Path] = []
    ignored = ignored_tars = 0
    for path in paths:
        if path.is_dir():
            found = _scan(path, prefixes[path])
            ignored += found.ignored
            files += found.files
            # A folder of shards is a list of shards; beside images, tars are just other files.
            if found.files:
                ignored_tars += len(found.tars)
            else:
                tars += found.tars
        elif path.suffix.lower() in SUFFIXES:
            files.append(ImageFile(_text(path.name), path, path.stat().st_size))
        elif path.suffix.lower() == ".tar":
            tars.append(path)
        else:
            raise SourceError(f"{path}: neither a folder, nor an image, nor a .tar; give one of these")
    files.sort(key=lambda file: file.key.encode())
    _refuse_twins(files)
    return Sources(tuple(files), tuple(_name_tars(tars)), ignored, ignored_tars)


@dataclass
class _Found:
    files: list[ImageFile]
    tars: list[Path]
    ignored: int


def _expand(argument: str) -> list[Path]:
    if not argument:
        raise SourceError("a SOURCE is empty text, perhaps a variable that is not set; give a folder or tar files")
    if "://" in argument or argument.startswith("pipe:"):
        raise SourceError(f"{argument}: remote sources are not read yet; copy the files here and give their folder")
    if Path(argument).exists():
        return [Path(argument)]
    if "{" in argument:
        try:
            paths = [Path(item) for item in braceexpand(argument)]
        except UnbalancedBracesError as error:
            raise SourceError(f"{argument}: its braces do not balance; write train-{{000..099}}.tar") from error
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise SourceError(f"{argument}: {len(missing)} of {len(paths)} files do not exist, first {missing[0]}")
        return paths
    raise SourceError(f"{argument}: no such file or folder; give a folder of images or tar files")


def _scan(folder: Path, prefix: str) -> _Found:
    found = _Found([], [], 0)
    for relative, entry in _walk(folder, "", set()):
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (a Path per file is slow for millions)
        if not entry.is_file():  # a link to nothing, a socket
            found.ignored += 1
        elif suffix in SUFFIXES:
            found.files.append(ImageFile(_text(prefix + relative), Path(entry.path), entry.stat().st_size))
        elif suffix == ".tar":
            found.tars.append(Path(entry.path))
        else:
            found.ignored += 1
    found.tars.sort(key=lambda path: os.fsencode(path))
    if not found.files and not found.tars:
        others = f" ({found.ignored} files of other kinds)" if found.ignored else ""
        raise SourceError(f"{folder}: holds no images{others}; expected {' '.join(sorted(SUFFIXES))} or .tar files")
    return found


def _walk(folder: Path, relative: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Entries below a folder with their relative paths, folders walked; hidden names and link loops are passed over.

    So are runs and token folders of imtok's own, which people put beside their images.
    """
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above or (relative and _is_ours({entry.name for entry in entries})):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{relative}{entry.name}/", above | {identity})
        else:
            yield f"{relative}{entry.name}", entry


def _is_ours(names: set[str]) -> bool:
    return "imtok.json" in names or {"config.yaml", ".lock"} <= names


def _text(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _prefixes(folders: list[Path]) -> dict[Path, str]:
    """What each folder's keys begin with: nothing for one folder, its name for one of several."""
    if len(folders) <= 1:
        return dict.fromkeys(folders, "")
    names = Counter(folder.resolve().name for folder in folders)
    for name, times in names.items():
        if times > 1:
            raise SourceError(f"{times} of the given folders are called {name}; their keys would collide, rename one")
    return {folder: folder.resolve().name + "/" for folder in folders}


def _refuse_twins(files: list[ImageFile]) -> None:
    for one, other in itertools.pairwise(files):
        if one.key == other.key:
            raise SourceError(f"{one.path} and {other.path}: both would have the key {one.key}; give one of them")


def _name_tars(paths: list[Path]) -> list[TarFile]:
    """Name tars by their stem, led by as many parent folders as it takes to tell them apart."""
    resolved = [path.resolve() for path in paths]
    for path, times in Counter(resolved).items():
        if times > 1:
            raise SourceError(f"{path}: given {times} times; give each tar once")
    depth = 1
    while True:
        names = [_text("-".join(path.with_suffix("").parts[-depth:])) for path in resolved]
        if len(set(names)) == len(names):
            break
        depth += 1
    return [TarFile(name, path, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
