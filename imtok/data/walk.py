"""The walk through a folder and the folders in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imtok.data.listing import Listing
from imtok.data.storage import Storage
from imtok.errors import SourceError

_PIECE = 4096  # files


class FolderFiles(NamedTuple):
    """Files of one folder that follow each other in the byte order of relative paths: none of a subfolder lies between.

    `relative` is the path of the folder, with a slash unless it is empty; the files are entries of its listing.
    """

    relative: str
    listing: Listing
    start: int
    stop: int


def walk(
    storage: Storage, folder: str, relative: str = "", above: frozenset[str] = frozenset()
) -> Iterator[FolderFiles]:
    """Yield the files below a folder, in the byte order of their relative paths; some of them may be hidden.

    Hidden folders and link loops are ignored, as are runs and token folders of imtok's own, which people put beside
    their images. `relative` is the path of the folder itself, with a slash, and `above` are the folders it lies in.
    Raises SourceError where a folder cannot be listed.
    """
    try:
        true_folder = storage.resolve(folder)
        entries = Listing.of(folder, storage.list(folder))
    except OSError as error:
        place = error.filename or folder
        raise SourceError(f"{place}: cannot be listed ({error.strerror}); check its permissions") from error
    if true_folder in above or (relative and _is_ours(entries)):
        return
    start = 0
    for index in entries.folders():
        yield from _pieces(relative, entries, start, index)
        start, entry = index + 1, entries[index]
        if not entry.name.startswith("."):
            yield from walk(storage, entry.address, f"{relative}{entry.name}/", above | {true_folder})
    yield from _pieces(relative, entries, start, len(entries))


def _pieces(relative: str, entries: Listing, start: int, stop: int) -> Iterator[FolderFiles]:
    """Yield files of a folder some thousand at a time, so that what is made of them takes little memory."""
    for first in range(start, stop, _PIECE):
        yield FolderFiles(relative, entries, first, min(first + _PIECE, stop))


def _is_ours(entries: Listing) -> bool:
    return entries.holds("imtok.json") or (entries.holds("config.yaml") and entries.holds(".lock"))
