"""The walk through a folder and the folders in it."""

from __future__ import annotations

from collections.abc import Iterator

from imtok.data.listing import Entry, Listing
from imtok.data.storage import Storage
from imtok.errors import SourceError


def walk(
    storage: Storage, folder: str, relative: str = "", above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Entry]]:
    """Yield the files below a folder with their relative paths, in the byte order of these.

    Hidden names and link loops are ignored, as are runs and token folders of imtok's own, which people put beside
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
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.kind == "folder":
            yield from walk(storage, entry.address, f"{relative}{entry.name}/", above | {true_folder})
        else:
            yield f"{relative}{entry.name}", entry


def _is_ours(entries: Listing) -> bool:
    return entries.holds("imtok.json") or (entries.holds("config.yaml") and entries.holds(".lock"))
