"""Names of samples in tars: keys as readers of WebDataset tars can take them.

Such a reader ends a sample's name at the first dot of its last part, so `img.1.jpg` and `img.2.jpg` would be members
of one sample. It also drops what lies in a folder such as `__x__`. A name is therefore the key without the suffix of
the picture, which is the name that the pictures themselves have in a tar; its dots become `_`.
"""

from __future__ import annotations

from collections.abc import Iterable

from imtok.data.pixels.formats import SUFFIXES


def member_name(key: str) -> str:
    """Return the name of a sample that stands for a key; different keys may have one name."""
    stem, _, suffix = key.rpartition(".")
    name = stem if f".{suffix.lower()}" in SUFFIXES and stem and stem[-1] != "/" else key
    if "." in name or "\0" in name:
        name = name.replace(".", "_").replace("\0", "_")
    return "_" + name.lstrip("_") if name.startswith("__") else name


class MemberNames:
    """Gives the names of the samples of one tar, each once: the second of a name ends in `-1`, the third in `-2`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._repeats: dict[str, int] = {}  # of the names that occurred before

    def take(self, keys: Iterable[str]) -> list[str]:
        """Return the names of the next samples."""
        return [self._take(member_name(key)) for key in keys]

    def _take(self, wished: str) -> str:
        name = wished
        while name in self._taken:
            self._repeats[wished] = self._repeats.get(wished, 0) + 1
            name = f"{wished}-{self._repeats[wished]}"
        self._taken.add(name)
        return name
