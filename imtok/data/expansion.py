"""SOURCE arguments as the files, folders and lists that they name: braces, patterns with `*`, URLs, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from imtok.data.address_lists import SUFFIX, AddressList
from imtok.data.addresses import file_name, is_remote, plain_address, redacted, scheme_of
from imtok.data.kinds import is_hidden, suffix_of
from imtok.data.reading import Reading
from imtok.data.remote_files import RemoteFiles, storage_for
from imtok.data.storage import storage_of
from imtok.errors import SourceError


def expand(
    arguments: Iterable[str | Path | AddressList], reading: Reading, remote: RemoteFiles | None
) -> list[str | AddressList]:
    """Return what the arguments name: addresses of existing files and folders, and lists.

    Without `remote` addresses of other machines are refused.
    """
    found: list[str | AddressList] = []
    for argument in arguments:
        if isinstance(argument, AddressList):
            found.append(argument)
        else:
            found += _expand(str(argument), reading, remote)
    return found


def is_folder(address: str, remote: RemoteFiles | None) -> bool:
    """Say whether an address is a folder, such as one of Parquet files that is called `x.parquet`."""
    return storage_for(address, remote).kind(address) == "folder"


def _expand(argument: str, reading: Reading, remote: RemoteFiles | None) -> Sequence[str | AddressList]:
    if not argument:
        raise SourceError("a SOURCE is empty text, perhaps a variable that is not set; give a folder or tar files")
    argument = plain_address(argument)
    if is_remote(argument):
        if remote is None:
            raise SourceError(
                f"{redacted(argument)}: remote images are read by encode; train and eval read remote tars alone, as "
                "streams; copy the files here and give their folder"
            )
        return _expand_remote(argument, remote)
    if storage_of(argument).kind(_plain(argument)):
        if reading.rules > 1 and suffix_of(argument) == SUFFIX and storage_of(argument).kind(argument) == "file":
            return [AddressList.of_file(argument)]
        return [_plain(argument)]
    if argument == "-":
        raise SourceError(
            "-: standard input is read by `imtok encode` alone; write its lines into a file and give @FILE"
        )
    if argument.startswith("@") and reading.rules > 1:
        if storage_of(argument[1:]).kind(argument[1:]) != "file":
            raise SourceError(f"{argument}: no such file; after @ stands a file with a path or URL on each line")
        return [AddressList.of_file(argument[1:])]
    if "{" in argument:
        addresses = [_plain(item) for item in _braces(argument)]
        missing = [address for address in addresses if not storage_of(address).kind(address)]
        if missing:
            raise SourceError(f"{argument}: {len(missing)} of {len(addresses)} files do not exist, first {missing[0]}")
        return addresses
    raise SourceError(f"{argument}: no such file or folder; give a folder of images or tar files")


def _expand_remote(argument: str, remote: RemoteFiles) -> list[str]:
    """Return the addresses that a URL names; braces are taken at their word, and patterns are listed."""
    web = scheme_of(argument) in ("http", "https")
    addresses = []
    for address in _braces(argument) if "{" in argument else [argument]:
        shown = redacted(address)
        if web and shown.endswith("/"):
            raise SourceError(f"{shown}: web servers list no folders; name the files, as in train-{{0000..0099}}.tar")
        if "*" in shown and not web:
            addresses += _matching(address, remote)
        else:
            addresses.append(address if web else address.rstrip("/"))
    remote.look_at(addresses)
    for address in addresses:
        if remote.kind(address) is None:
            raise SourceError(f"{redacted(address)}: does not exist; check the address and the credentials")
        if suffix_of(file_name(address)) == SUFFIX:
            raise SourceError(
                f"{redacted(address)}: a list is read from this machine alone; copy it here and give @FILE"
            )
    return addresses


def _matching(pattern: str, remote: RemoteFiles) -> list[str]:
    entries = [entry for entry in remote.matching(pattern) if not is_hidden(entry.name)]
    if not entries:
        raise SourceError(f"{pattern}: nothing matches; check the pattern")
    for entry in entries:
        if entry.kind == "file":
            remote.remember(entry)
    return sorted((entry.address for entry in entries), key=str.encode)


def _braces(argument: str) -> list[str]:
    try:
        return list(braceexpand(argument))
    except UnbalancedBracesError:
        shown = redacted(argument)
        raise SourceError(f"{shown}: its braces do not balance; write train-{{000..099}}.tar") from None


def _plain(argument: str) -> str:
    """Return an address as messages have it: a local path without doubled or trailing slashes."""
    return argument if "://" in argument else str(Path(argument))
