"""Runs of numbered files under one name, as a shell expands it: `codes/{0..1023}.npy` is 1,024 files.

The record of an export has an entry for such a run, so that it does not grow with the number of images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def run_of(first: int, count: int) -> str:
    """Return the range of `count` numbers from `first` on, to stand in a name."""
    return f"{{{first}..{first + count - 1}}}"


def names_in(run: str) -> Iterator[str]:
    """Yield the names of a run, the last range fastest; a name without a range is a run of itself."""
    found = _RANGE.search(run)
    if found is None:
        yield run
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        for tail in names_in(run[found.end() :]):
            yield f"{run[: found.start()]}{number}{tail}"


def count_in(run: str) -> int:
    """Return how many names a run has."""
    count = 1
    for first, last in _RANGE.findall(run):
        count *= max(0, int(last) - int(first) + 1)
    return count
