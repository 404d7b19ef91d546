"""The walk through a folder and the folders in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imtok.data.listing import Files, Listing
from imtok.data.storage import Storage
from imtok.errors import SourceError

_OURS = frozenset({"imtok.json", "config.yaml", ".lock"})  # a token folder has the first one, a run the others


class FolderFiles(NamedTuple):
    """Files of one folder that follow each other in the byte order of relative paths: none of a subfolder lies between.

    `relative` is the path of the folder, with a slash unless it is empty.
    """

    relative: str
    files: Files


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
        listing = Listing(folder, storage.list(folder), _OURS)
    except OSError as error:
        place = error.filename or folder
        raise SourceError(f"{place}: cannot be listed ({error.strerror}); check its permissions") from error
    if true_folder in above or (relative and _is_ours(listing)):
        return
    for entries in listing:
        if isinstance(entries, Files):
            yield FolderFiles(relative, entries)
        elif not entries.name.startswith("."):
            yield from walk(storage, entries.address, f"{relative}{entries.name}/", above | {true_folder})


def _is_ours(listing: Listing) -> bool:
    return "imtok.json" in listing.names or {"config.yaml", ".lock"} <= listing.names
