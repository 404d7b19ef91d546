"""Names of containers, each once in a job: the stem of the file, led by as many of its folders as it takes.

The path that was given makes the name, not the target of a link: caches of the Hub and annexes link every file to a
hash. Rules 1 take the target.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from imtok.data.containers import as_text
from imtok.data.reading import Rules
from imtok.data.storage import storage_of
from imtok.errors import SourceError


def name_containers(
    addresses: Sequence[str], known: Mapping[str, int], rules: Rules, sizes: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Return a name and the address of each container, in order; `sizes` are their bytes by address.

    `known` are names with their bytes that stay as they are. Each claims the first address that could have the name
    and has as many bytes, else the first that could have the name. Raises SourceError where one file is given twice.
    """
    refuse_links_to_one(addresses, "file")
    candidates = [_possible(address) for address in true_addresses(addresses, rules)]
    names: dict[int, str] = {}
    for by_size in (True, False):
        for name, size in known.items():
            if name not in names.values():
                claimed = _claim(name, size if by_size else None, addresses, candidates, names, sizes)
                names |= {claimed: name} if claimed is not None else {}
    rest = [index for index in range(len(addresses)) if index not in names]
    names |= _distinct({index: candidates[index] for index in rest}, set(known))
    return [(names[index], address) for index, address in enumerate(addresses)]


def true_addresses(addresses: Sequence[str], rules: Rules) -> list[str]:
    """Return the addresses that names are made from: absolute, with links followed under rules 1 only."""
    if rules == 1:
        return [storage_of(address).resolve(address) for address in addresses]
    return [address if "://" in address else os.path.abspath(address) for address in addresses]  # noqa: PTH100


def refuse_links_to_one(addresses: Sequence[str], what: str) -> None:
    """Raise SourceError where two addresses are one file or folder."""
    resolved = [storage_of(address).resolve(address) for address in addresses]
    for target, times in Counter(resolved).items():
        if times > 1:
            same = [address for address, one in zip(addresses, resolved, strict=True) if one == target]
            both = f"{same[0]} and {same[1]} are one {what}, " if same[0] != same[1] else f"{same[0]}: "
            raise SourceError(f"{both}given {times} times; give each {what} once")


def _possible(address: str) -> list[str]:
    """Names that a container may get, the shortest first; only that of a tar goes without its suffix."""
    path = PurePath(address)
    short = path.with_suffix("") if path.suffix.lower() == ".tar" else path
    names = [as_text("-".join(short.parts[-depth:])) for depth in range(1, len(short.parts) + 1)]
    return [*names, as_text("-".join(path.parts))]  # where only their suffixes differ


def _claim(
    name: str,
    size: int | None,
    addresses: Sequence[str],
    candidates: list[list[str]],
    names: Mapping[int, str],
    sizes: Mapping[str, int],
) -> int | None:
    """Find the first container without a name that could have this one, of this size unless it is None."""
    for index, address in enumerate(addresses):
        free = index not in names and name in candidates[index]
        if free and (size is None or sizes.get(address) == size):
            return index
    return None


def _distinct(candidates: Mapping[int, list[str]], taken: set[str]) -> dict[int, str]:
    """Name the rest: the least number of folders that tells all of them apart, and from the names taken."""
    longest = max((len(names) for names in candidates.values()), default=0)
    for depth in range(longest):
        names = {index: possible[min(depth, len(possible) - 1)] for index, possible in candidates.items()}
        if len(set(names.values())) == len(names) and not taken & set(names.values()):
            return names
    return {index: possible[-1] for index, possible in candidates.items()}
