"""File names for keys out of a token folder, which may come from anywhere and are not trusted.

The key `a/x.jpg` becomes `a/x.jpg.png`: its own suffix stays, so `x.jpg` and `x.webp` do not collide. A name that
cannot be a file's as it stands is cut or marked with a hash of what it stood for, `~` and 16 hexadecimal digits:
names that are too long, written oddly (`a//b`), or folders that end like the image files beside them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from imtok.errors import TokensError

# File systems allow 255 bytes a name; a temporary's prefix and the suffix need room.
_LONGEST_PART, _LONGEST_PATH = 200, 2000
_MARK = re.compile(r"~[0-9a-f]{16}$")


def image_name(key: str, suffix: str) -> str:
    """Return the relative path of the file for a key, `suffix` with its dot.

    Raises TokensError for a key that is absolute or climbs with `..`: no encoder of ours writes one.
    """
    path = PurePosixPath(key)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in key:
        raise TokensError(f"key {key!r} would lie outside the output folder; this token folder is not to be trusted")
    if len(key.encode()) > _LONGEST_PATH:
        return _marked(path.name, key) + suffix
    folders = [_safe(part, part.endswith(suffix)) for part in path.parts[:-1]]
    last = _marked(path.name, key) if str(path) != key else _safe(path.name, False)
    return "/".join([*folders, last + suffix])


def tar_folders(tars: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Name a folder for each tar: its name, with `~` added until no folder of images is called so."""
    used = set(taken)
    folders = []
    for tar in tars:
        if "/" in tar:
            raise TokensError(f"tar name {tar!r} is a path; this token folder is not to be trusted")
        while tar in used:
            tar += "~"
        used.add(tar)
        folders.append(tar)
    return folders


def _safe(part: str, ambiguous: bool) -> str:
    too_long = len(part.encode()) > _LONGEST_PART
    return _marked(part, part) if too_long or ambiguous or _MARK.search(part) else part


def _marked(part: str, origin: str) -> str:
    start = part.encode()[: _LONGEST_PART - 20].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(origin.encode()).hexdigest()[:16]}"
