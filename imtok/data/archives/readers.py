"""The readers of containers, by the suffix of the file."""

from __future__ import annotations

from collections.abc import Callable

from imtok.data.archives.parquet import open_parquet
from imtok.data.archives.tars import open_tar
from imtok.data.archives.zips import open_zip
from imtok.data.containers import Container
from imtok.data.reading import Reading

# A new kind of container is a module and a line here.
CONTAINERS: dict[str, Callable[[str, Reading], Container]] = {
    ".tar": open_tar,
    ".zip": open_zip,
    ".parquet": open_parquet,
}
_SINCE_2 = frozenset({".zip", ".parquet"})  # containers under rules 2


def kinds_of_containers(reading: Reading) -> frozenset[str]:
    """Return the suffixes of the containers that these rules read."""
    return frozenset(CONTAINERS) - (_SINCE_2 if reading.rules == 1 else frozenset())


def readable_containers(reading: Reading) -> str:
    """Name the containers that these rules read, for a person."""
    *others, last = sorted(kinds_of_containers(reading))
    return f"{', '.join(others)} or {last} file" if others else f"{last} file"
