"""The images of one folder all at once: one by one, ten million files would take minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from imtok.data.kinds import FileKind
from imtok.data.listing import Files


class PlainImages(NamedTuple):
    """Images of a folder that are files at its address and their name, and the other files by position."""

    names: list[str]
    sizes: list[int | None]  # bytes, None where the listing does not have them
    others: list[int]


def plain_images(files: Files, beginning: str, kind_of: Callable[[str], FileKind]) -> PlainImages | None:
    """Find the images of a folder whose address is `beginning`; hidden files are neither images nor others.

    Returns None where each file has to be looked at: one has another address, or may be an image by its first bytes.
    """
    names = files.plain_names(beginning)
    if names is None:
        return None
    suffixes = [name[name.rfind(".") :] for name in names]  # the last letter where there is no dot
    hidden = any(name.startswith(".") for name in names)
    kinds = {suffix: kind_of(f"x{suffix}") for suffix in set(suffixes) if suffix.startswith(".")}
    if not hidden and all(kinds.get(suffix) == "image" for suffix in set(suffixes)):
        return PlainImages(names, files.sizes, [])
    images: list[int] = []
    others: list[int] = []
    for place, (name, suffix) in enumerate(zip(names, suffixes, strict=True)):
        if name.startswith("."):
            continue
        kind = kinds.get(suffix, "unknown")
        if kind == "unknown":
            return None
        (images if kind == "image" else others).append(place)
    sizes = files.sizes
    return PlainImages(
        [names[place] for place in images],
        [sizes[place] for place in images],
        others,
    )
