"""The labels of a job: where they come from, and the class number of each image.

`find_labels` looks at the sources in this order and takes what it finds first:

1. `.cls` beside an image: a class number or name (WebDataset), or the class of a Parquet row;
2. `dataset.json` at the root of a folder or container (StyleGAN);
3. a field of the `.json` beside an image (img2dataset), see `FIELDS`;
4. class folders, see `label_folders`.

Numbers stay as they are. Names get the numbers of their sorted list, and a later name follows those before. Two
numberings are never mixed in a job.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imtok.data.containers import Container, SourceImage
from imtok.data.labels.folders import ClassFolders
from imtok.data.labels.search import (
    LabelChoice as LabelChoice,
)
from imtok.data.labels.search import (
    LabelSource as LabelSource,
)
from imtok.data.labels.search import (
    Numbering,
    Search,
    conflict,
    look_at,
    read_value,
    table_of,
)
from imtok.data.labels.texts import Label
from imtok.data.packed_images import keys_of
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.sources import Sources
from imtok.errors import ConfigError, SourceError

_REMEMBERED = 8  # containers in work at one time
_MANY = 1000  # names in .json files; above, one with fewer than two images is a caption


@dataclass(frozen=True)
class Labels:
    """Where the labels of a job come from, and the names of the classes."""

    source: LabelSource
    class_names: tuple[str, ...] = ()  # labels are indices into it; empty where numbers have no names
    notes: tuple[str, ...] = ()  # what a person has to know about them
    numbering: Numbering = field(default_factory=Numbering)
    file_folders: ClassFolders | None = None  # of the folder list
    inner_folders: ClassFolders | None = None  # in containers
    file_table: Mapping[str, Label] = field(default_factory=dict)  # of `dataset.json` in folders, by key
    # False where the choice of the caller is kept, although nothing shows it.
    found: bool = field(default=True, compare=False)
    # Whether containers that the first look left out may turn up with labels of another kind.
    watched: bool = field(default=False, compare=False)
    _numbers: dict[str, int] = field(init=False, default_factory=dict, repr=False, compare=False)
    _tables: _Tables = field(init=False, default_factory=lambda: _Tables(), repr=False, compare=False)

    def __post_init__(self) -> None:
        self._numbers.update((name, number) for number, name in enumerate(self.class_names))

    def label(self, image: SourceImage, container: Container | None) -> int | None:
        """Return the class number of an image, None where it has none; `container` holds it, None for a file.

        Raises SourceError where its container cannot be read, or numbers its classes otherwise than the job does.
        """
        if self.watched and container is not None:
            self._tables.of(container, self)
        if self.source == "none":
            return None
        if self.source == "folders":
            folders = self.file_folders if container is None else self.inner_folders
            name = folders.class_of(image.key) if folders else None
            return self._number_of(name, image) if name is not None else None
        table = self.file_table
        if container is not None:
            table = self._tables.of(container, self)
        value = read_value(image, self.numbering, table)
        if isinstance(value, str):
            return self._number_of(value, image) if self.numbering.kind == "names" else None
        if self.numbering.kind == "names":
            return self._number_of(str(value), image) if value is not None else None
        if value is not None and self.numbering.kind == "declared" and value >= len(self.class_names):
            return None
        return value

    @property
    def late_notes(self) -> tuple[str, ...]:
        """Say what containers that the first look left out have for labels, once they were read."""
        if not self._tables.unused:
            return ()
        return (f"{self._tables.unused}, which no first look had shown; take --labels cls or json and another folder",)

    def _number_of(self, name: str, image: SourceImage) -> int:
        number = self._numbers.get(name)
        if number is None:
            raise SourceError(f"{image.key}: its class {name} came after the job had begun; run the same command again")
        return number


class _Tables:
    """The `dataset.json` of the containers in work; each container is checked when it is first seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[Container, Mapping[str, Label]]] = []
        self.unused = ""  # the labels of a container in a job without labels

    def of(self, container: Container, labels: Labels) -> Mapping[str, Label]:
        """Return its labels by key; raises SourceError where its numbering is not that of the job."""
        with self._lock:
            for known, table in self._known:
                if known is container:
                    return table
            choice = "auto" if labels.watched else labels.source
            look = look_at("this container", container.images, [("", container)], choice)
            if look.numbering is not None and labels.source == "none":
                self.unused = self.unused or f"a container has {look.numbering.words}"
            elif look.numbering is not None and labels.source == "folders":
                raise SourceError(
                    f"it has {look.numbering.words} for labels, the job has class folders; two numberings are never "
                    "mixed: take --labels folders, or encode it into a token folder of its own"
                )
            elif look.numbering is not None and (reason := conflict(labels.numbering, look.numbering)):
                raise SourceError(reason)
            table = table_of([("", container)])[0] if labels.numbering.table else {}
            self._known = [*self._known[1 - _REMEMBERED :], (container, table)]
            return table


@dataclass(frozen=True)
class _FirstRules(Labels):
    """Labels by rules 1: top folders of the folder list, and whole numbers of `.cls` members of tars."""

    def label(self, image: SourceImage, container: Container | None) -> int | None:
        """Return the class number of an image, None where it has none."""
        if container is None:
            return self._numbers.get(image.key.split("/", 1)[0])
        try:
            number = int(image.beside(".cls") or b"")
        except ValueError:
            return None
        return number if -(2**63) <= number < 2**63 else None


def find_labels(
    sources: Sources,
    choice: LabelChoice = "auto",
    *,
    known: tuple[str, ...] | None = None,
    reading: Reading = DEFAULT_READING,
) -> Labels:
    """Decide where labels come from.

    `known` are the class names that a job has recorded, None for a new job: they keep their numbers, and new ones
    follow. Raises ConfigError where `choice` finds nothing, SourceError where two numberings would be mixed.
    """
    if reading.rules == 1:
        return _by_first_rules(sources, known)
    if choice == "none":
        return Labels("none", known or ())
    search = Search(sources, choice)
    numbering = search.numbering()
    if numbering is not None:
        found = search.names(numbering) if numbering.kind == "names" else Counter[str]()
        if choice == "auto" and numbering.source == "json" and len(found) > _MANY and found.total() < 2 * len(found):
            return Labels("none", (), (f"{numbering.words} are nearly all different, so they name no classes",))
        names = _class_names(numbering, set(found), known)
        table = search.file_table if numbering.table else {}
        return Labels(numbering.source, names, search.notes(numbering), numbering, file_table=table)
    if choice in ("auto", "folders"):
        files, inner = search.class_folders()
        if files or inner:
            taken = {*(files.classes.values() if files else ()), *(inner.classes.values() if inner else ())}
            notes = (*(files.notes if files else ()), *(inner.notes if inner else ()))
            return Labels("folders", _append(known, taken), notes, file_folders=files, inner_folders=inner)
    if choice != "auto" and known is None:
        raise ConfigError(f"--labels {choice}: {search.nothing()}; leave it out, or take another")
    # A job that has begun with labels keeps their kind, although these inputs show none.
    source: LabelSource = choice if choice != "auto" else "cls" if search.blind else "none"
    return Labels(source, known or (), search.notes(None), found=False, watched=source == "none" and choice == "auto")


def _class_names(numbering: Numbering, names: set[str], known: tuple[str, ...] | None) -> tuple[str, ...]:
    if numbering.kind == "numbers":
        if known:
            raise SourceError(f"{numbering.words}: the job was begun with names of classes; encode into another folder")
        return ()
    if numbering.kind == "names":
        return _append(known, names)
    if known and known != numbering.declared:
        raise SourceError(f"{numbering.words}: the job was begun with other names; encode into another folder")
    return numbering.declared


def _append(known: Sequence[str] | None, found: set[str]) -> tuple[str, ...]:
    """Return the names with new ones, sorted, after those that are known."""
    return (*(known or ()), *sorted(found - set(known or ())))


def _by_first_rules(sources: Sources, known: tuple[str, ...] | None) -> Labels:
    """Take the top folders where every image lies in one and there are two or more, and `.cls` members of tars.

    A job that was begun without names of classes stays without.
    """
    tops = {key.split("/", 1)[0] for key in keys_of(sources.files)}
    names = tops if known != () and len(tops) > 1 and all("/" in key for key in keys_of(sources.files)) else set()
    return _FirstRules("folders" if names else "cls" if sources.containers else "none", _append(known, names))
