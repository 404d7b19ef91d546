"""Published checkpoints on the Hugging Face Hub: the few files of a repository that an import needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from imtok.errors import HubError
from imtok.hub import is_hub_address, snapshot
from imtok.interop.weights import USUAL, index_of, shard_names

_SETTINGS = ("*.yaml", "*.yml", "config.json")


@dataclass(frozen=True)
class Fetched:
    """A checkpoint on this machine, and where it came from."""

    path: Path  # the file, or the folder that holds it
    source: str  # name of the file, or the address without its revision
    revision: str = ""  # commit of the repository


def fetched(checkpoint: str | Path) -> Fetched:
    """Return a checkpoint of this machine as it is, and fetch one that an address of the Hub names.

    An address of a file brings that file and the configurations beside it; one of a repository or folder brings its
    configurations and the weights under their usual name, or all files of an index. Raises HubError where there are
    none.
    """
    if not is_hub_address(checkpoint):
        path = Path(checkpoint)
        return Fetched(path, path.resolve().name if path.name in ("", "..") else path.name)
    found = snapshot(checkpoint, [*_SETTINGS, *USUAL, "*.index.json"])
    index = index_of(found.path)
    if index is not None:
        folder = replace(found.address, path=found.address.path if found.path.is_dir() else "")
        snapshot(str(folder), shard_names(index))
    elif found.path.is_dir() and not any((found.path / name).is_file() for name in USUAL):
        raise HubError(f"{found.address}: has no weights under a usual name; name their file: {checkpoint}/FILE")
    return Fetched(found.path, str(replace(found.address, revision="")), found.revision)
