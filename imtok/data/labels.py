"""The class numbers of images: from their folders, or from `.cls` files beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imtok.data.containers import Container, ImageFile, LostImage, SourceImage
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.sources import Sources

LabelChoice = Literal["auto", "folders", "cls", "json", "none"]
LabelSource = Literal["folders", "cls", "json", "none"]


@dataclass(frozen=True)
class Labels:
    """Where the labels of a job come from, and the names of the classes."""

    source: LabelSource
    class_names: tuple[str, ...] = ()  # labels are indices into it; empty where numbers have no names

    def label(self, image: SourceImage, container: Container | None) -> int | None:
        """Return the class number of an image, None where it has none; `container` holds it, None for a file.

        Raises SourceError where its container cannot be read.
        """
        if container is None:
            top = image.key.split("/", 1)[0]
            return self.class_names.index(top) if top in self.class_names else None
        return _number(image.beside(".cls"))


def find_labels(
    sources: Sources, choice: LabelChoice = "auto", *, known: tuple[str, ...] = (), reading: Reading = DEFAULT_READING
) -> Labels:
    """Decide where labels come from.

    `known` are the class names that a job has recorded: they keep their numbers, and new ones follow.
    """
    del choice, reading
    names = _folder_names(sources.files)
    new = tuple(name for name in names if name not in known)
    return Labels("folders", (*known, *new)) if names else Labels("cls" if sources.containers else "none", known)


def _folder_names(files: tuple[ImageFile | LostImage, ...]) -> tuple[str, ...]:
    """Sorted top folders, where every image lies in one and there are two or more: class folders."""
    tops = {file.key.split("/", 1)[0] for file in files}
    in_folders = all("/" in file.key for file in files)
    return tuple(sorted(tops)) if in_folders and len(tops) > 1 else ()


def _number(text: bytes | None) -> int | None:
    """Read a 64-bit class number, None where there is none."""
    try:
        label = int(text) if text is not None else None
    except ValueError:
        return None
    return label if label is not None and -(2**63) <= label < 2**63 else None
