"""Lists of shards from SOURCE arguments: tars, brace patterns such as `s3://bucket/train-{0000..1023}.tar`, folders.

A brace pattern of another machine is taken at its word: no shard is looked at before it is read, so a list of any
length is made in a moment. Folders of stores are listed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from imtok.data.addresses import is_remote, plain_address, redacted, scheme_of
from imtok.data.archives.compression import SUFFIXES_OF_COMPRESSED_TARS
from imtok.data.container_names import name_containers
from imtok.data.kinds import CONTAINER_SUFFIXES, is_hidden, suffix_of
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.sources import find_sources
from imtok.data.storage import storage_of
from imtok.errors import SourceError


@dataclass(frozen=True)
class ShardList:
    """Shards in a fixed order."""

    addresses: tuple[str, ...] = field(repr=False)  # as they are read, with whatever secrets they hold
    names: tuple[str, ...]  # redacted addresses, each once
    stems: tuple[str, ...]  # beginnings of their images' keys, each once

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the stems: a run goes on with the same shards wherever they lie now."""
        return hashlib.sha256("\n".join(self.stems).encode()).hexdigest()

    def only(self, numbers: Sequence[int]) -> ShardList:
        """Take the shards with these numbers."""
        return ShardList(
            *(tuple(values[number] for number in numbers) for values in (self.addresses, self.names, self.stems))
        )


def find_shards(arguments: Sequence[str | Path], reading: Reading = DEFAULT_READING) -> ShardList:
    """Resolve SOURCE arguments to shards; raises SourceError for what is no shard, does not exist or comes twice."""
    addresses = [address for argument in arguments for address in _expanded(plain_address(str(argument)), reading)]
    twice = [address for address, times in Counter(addresses).items() if times > 1]
    if twice:
        raise SourceError(f"{redacted(twice[0])}: given more than once; give each shard once")
    names = list(_distinct([redacted(address) for address in addresses]))
    stems = [stem for stem, _ in name_containers(names, {}, reading.rules, {})]
    return ShardList(tuple(addresses), tuple(names), tuple(stems))


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """Number the names that differ only in what may not be shown."""
    times, given = Counter(names), Counter[str]()
    for name in names:
        given[name] += 1
        yield f"{name}#{given[name]}" if times[name] > 1 else name


def _expanded(argument: str, reading: Reading) -> list[str]:
    """Return the addresses that an argument names."""
    if not is_remote(argument):
        return _local(argument, reading)
    try:
        addresses = list(braceexpand(argument)) if "{" in argument else [argument]
    except UnbalancedBracesError:
        shown = redacted(argument)
        raise SourceError(f"{shown}: its braces do not balance; write train-{{000..099}}.tar") from None
    return [shard for address in addresses for shard in _remote(address)]


def _local(argument: str, reading: Reading) -> list[str]:
    sources = find_sources([argument], reading)
    if sources.files:
        raise SourceError(
            f"{argument}: holds images, and a stream reads tars alone; give tars only, or folders and tars of this "
            "machine without --stream"
        )
    others = [file for file in sources.containers if file.kind != ".tar"]
    if others:
        raise SourceError(f"{others[0].address}: no tar, and a stream reads tars alone; leave --stream out to read it")
    return [file.address for file in sources.containers]


def _remote(address: str) -> list[str]:
    """Return a shard of another machine, or those of a folder of a store."""
    shown, web = redacted(address), scheme_of(address) in ("http", "https")
    if shown.lower().endswith(SUFFIXES_OF_COMPRESSED_TARS):
        raise SourceError(f"{shown}: compressed, and a stream reads plain tars alone; unpack the shards first")
    suffix = suffix_of(shown)
    if suffix in CONTAINER_SUFFIXES - {".tar"}:
        raise SourceError(f"{shown}: a stream reads tars alone; copy the file here and give its path")
    if suffix == ".tar" or (web and not shown.endswith("/")):
        return [address]
    if web:
        raise SourceError(f"{shown}: web servers list no folders; name the shards, as in train-{{0000..0099}}.tar")
    return _listed(address)


def _listed(folder: str) -> list[str]:
    storage, shown = storage_of(folder), redacted(folder)
    assert isinstance(storage, RemoteStorage)
    try:
        entries = storage.find(folder, ".tar")
    except RemoteError as error:
        raise SourceError(
            f"{shown}: cannot be listed ({error.reason}); check the address and the credentials"
        ) from None
    shards = sorted((entry.address for entry in entries if not is_hidden(entry.name)), key=str.encode)
    if not shards:
        raise SourceError(f"{shown}: no .tar lies below it; give a folder of shards, or their names")
    return shards
