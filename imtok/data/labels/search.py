"""The search for labels: what a first look at the sources shows, and the names of all classes where they are text.

The first look opens up to 64 containers, evenly spaced, and reads what lies beside up to 256 images of each. Of
containers on other machines it fetches four. Containers with names of classes are all read once before a job begins,
since a number is a place in the list of all names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

from imtok.data.addresses import is_remote
from imtok.data.containers import Container, SourceImage, read_small
from imtok.data.labels.folders import ClassFolders, FolderTally
from imtok.data.labels.texts import Label, read_cls, read_dataset_json, read_fields
from imtok.data.packed_images import keys_of
from imtok.data.sources import ContainerFile, Sources
from imtok.errors import SourceError
from imtok.parallel import in_order

LabelChoice = Literal["auto", "folders", "cls", "json", "none"]
LabelSource = Literal["folders", "cls", "json", "none"]
_T = TypeVar("_T")

_CONTAINERS, _IMAGES = 64, 256  # of the first look
_FETCHED = 4  # containers of the first look where they have to be fetched from other machines
_READERS = 8  # threads that read containers
_TABLE = "dataset.json"


@dataclass(frozen=True)
class Numbering:
    """One way in which numbers are given to classes."""

    where: str = ".cls"  # or .json, dataset.json
    kind: Literal["numbers", "names", "declared"] = "numbers"
    field: str = ""  # of a .json
    declared: tuple[str, ...] = ()  # names that the file itself gives to its numbers

    @property
    def table(self) -> bool:
        """Whether one file lists the labels of all images."""
        return self.where == _TABLE

    @property
    def source(self) -> LabelSource:
        """The choice that takes it."""
        return "cls" if self.where == ".cls" else "json"

    @property
    def words(self) -> str:
        """Say it for a person."""
        if self.kind == "declared":
            return f"numbers with the names {_listed(self.declared)}"
        place = f"the field {self.field} of .json files" if self.field else f"{self.where} files"
        return f"{self.kind} in {place}"


@dataclass(frozen=True)
class Look:
    """What some images of one place have for labels."""

    place: str
    numbering: Numbering | None  # None where they have none
    notes: tuple[str, ...] = ()


def conflict(one: Numbering, other: Numbering) -> str:
    """Say why two numberings cannot be in one job; empty where they are the same."""
    if one == other:
        return ""
    return (
        f"it has {other.words}, the job has {one.words}; two numberings are never mixed: encode it into a token folder "
        "of its own, or all of them with another --labels"
    )


def read_value(image: SourceImage, numbering: Numbering, table: Mapping[str, Label]) -> Label | None:
    """Read the label of an image as it is written; raises SourceError where its container cannot be read."""
    if numbering.table:
        return table.get(image.key)
    if numbering.where == ".cls":
        return read_cls(image.beside(".cls"))
    return read_fields(image.beside(".json")).get(numbering.field)


def table_of(roots: Sequence[tuple[str, Container | str]]) -> tuple[dict[str, Label], tuple[str, ...]]:
    """Read `dataset.json` of containers or folders, each with the beginning of its keys; and what is to be said."""
    table: dict[str, Label] = {}
    notes: list[str] = []
    for prefix, root in roots:
        data = _root_file(root)
        if data is None:
            continue
        try:
            listed = read_dataset_json(data) or {}
        except ValueError as error:
            notes.append(f"{_TABLE}: {error}, so they are left out")
            continue
        table.update((prefix + name, label) for name, label in listed.items())
    return table, tuple(notes)


def look_at(
    place: str, images: Sequence[SourceImage], roots: Sequence[tuple[str, Container | str]], choice: str
) -> Look:
    """Look at some images of one place; class folders are no part of it."""
    some = spread(images, _IMAGES)
    declared = tuple(name for _, root in roots if isinstance(root, Container) for name in root.class_names)
    notes: tuple[str, ...] = ()
    if choice in ("auto", "cls"):
        kind = _kind_of([read_cls(image.beside(".cls")) for image in some])
        if kind:
            return Look(place, Numbering(".cls", "declared" if declared else kind, declared=declared))
    if choice in ("auto", "json"):
        table, notes = table_of(roots)
        kind = _kind_of(list(table.values()))
        if kind:
            return Look(place, Numbering(_TABLE, kind), notes)
        fields = [read_fields(image.beside(".json")) for image in some]
        for name in next((tuple(found) for found in fields if found), ()):
            kind = _kind_of([found.get(name) for found in fields])
            if kind:
                return Look(place, Numbering(".json", kind, name), notes)
    return Look(place, None, notes)


class Search:
    """The search of one job."""

    def __init__(self, sources: Sources, choice: LabelChoice) -> None:
        self._sources, self._choice = sources, choice
        self._fetched = any(file.remote is not None for file in sources.containers)
        self._chosen = spread(sources.containers, _FETCHED if self._fetched else _CONTAINERS)
        self._tallies: dict[str, FolderTally] = {}  # folders in the containers of the first look, by address
        self._looks: list[Look] = []
        self._folder_notes: tuple[str, ...] = ()

    def numbering(self) -> Numbering | None:
        """Return the numbering that files beside images show; raises SourceError where they show two."""
        self._looks = list(self._look())
        shown = [(look.place, look.numbering) for look in self._looks if look.numbering is not None]
        if not shown:
            return None
        place, first = shown[0]
        for other_place, other in shown[1:]:
            if other != first:
                raise _mixed((place, first), (other_place, other))
        if self._choice == "auto":
            self._refuse_folders_beside(place, first, {name for name, _ in shown})
        return first

    def names(self, numbering: Numbering) -> Counter[str]:
        """Count the images of each name, in all sources; raises SourceError where a container has numbers."""
        names = _names_of(self._sources.files, self.file_table, numbering)
        for found in self._inner_names(numbering):
            names.update(found)
        return names

    def class_folders(self) -> tuple[ClassFolders | None, ClassFolders | None]:
        """Find the class folders of the folder list, and those in containers."""
        files, file_notes = self._file_tally.find_classes()
        inner, inner_notes = self._inner_tally().find_classes()
        if not files and not inner and self._choice == "folders":
            files, file_notes = self._file_tally.find_classes(force=True)
            inner, inner_notes = self._inner_tally().find_classes(force=True)
        if inner:
            inner, inner_notes = self._inner_tally(everything=True).find_classes(force=True)
        self._folder_notes = (*file_notes, *inner_notes)
        return files, inner

    def notes(self, numbering: Numbering | None) -> tuple[str, ...]:
        """Say what a person has to know: labels that cannot be read, and class folders that are not taken."""
        notes = dict.fromkeys(note for look in self._looks for note in look.notes)
        if numbering is not None and self._choice == "auto" and (files := self._file_tally.find_classes()[0]):
            names = sorted(set(files.classes.values()))
            notes[f"taken from {numbering.words}; --labels folders takes the folders {_listed(names)}"] = None
        if numbering is None:
            notes |= dict.fromkeys(self._folder_notes)
        return tuple(notes)

    def nothing(self) -> str:
        """Say what an explicit choice did not find."""
        looked_for = {
            "cls": "no .cls file with a class beside an image",
            "json": f"no {_TABLE} with classes, and no class in a .json beside an image",
        }.get(self._choice, "no image lies in a folder")
        return "; ".join((looked_for, *self.notes(None)))

    @property
    def blind(self) -> bool:
        """Whether there are containers, and none of the first look could be opened and has images."""
        return bool(self._sources.containers) and not any(
            tally.flat or tally.images for tally in self._tallies.values()
        )

    @cached_property
    def file_table(self) -> Mapping[str, Label]:
        """Labels of `dataset.json` at the roots of the folders, by key."""
        return table_of(self._sources.roots)[0]

    def _look(self) -> Iterator[Look]:
        if self._sources.files:
            yield look_at("the folder list", self._sources.files, self._sources.roots, self._choice_of_files())
        for file, container in self._opened(self._chosen):
            self._tallies[file.shown] = FolderTally().add(image.key for image in container.images)
            yield look_at(file.shown, container.images, [("", container)], self._choice)

    def _choice_of_files(self) -> str:
        """Return the choice for the folder list, without what no listing of a store shows: each look is a request."""
        if not is_remote(self._sources.files[0].address):
            return self._choice
        texts = self._sources.texts
        shown = {"cls": bool(texts.get(".cls")), "json": bool(texts.get(".json") or texts.get(_TABLE))}
        if self._choice == "auto" and not all(shown.values()):
            return next((choice for choice, there in shown.items() if there), "folders")
        return self._choice if shown.get(self._choice, True) else "folders"

    def _refuse_folders_beside(self, place: str, numbering: Numbering, numbered: set[str]) -> None:
        """Raise SourceError where some places have class folders, and others numbers."""
        groups = []
        if "the folder list" not in numbered:
            groups.append(("the folder list", self._file_tally))
        others = [tally for address, tally in self._tallies.items() if address not in numbered]
        first = next((address for address in self._tallies if address not in numbered), "")
        groups.append((first, FolderTally.union(others)))
        for other, tally in groups:
            classes, _ = tally.find_classes()
            if classes:
                names = sorted(set(classes.classes.values()))
                raise _mixed((other, f"class folders ({_listed(names)})"), (place, numbering))

    @cached_property
    def _file_tally(self) -> FolderTally:
        return FolderTally().add(keys_of(self._sources.files))

    def _inner_tally(self, *, everything: bool = False) -> FolderTally:
        if everything:
            rest = [file for file in self._sources.containers if file.shown not in self._tallies]
            for file, container in self._opened(rest):
                self._tallies[file.shown] = FolderTally().add(image.key for image in container.images)
        return FolderTally.union(self._tallies.values())

    def _inner_names(self, numbering: Numbering) -> Iterator[Counter[str]]:
        for file, container in self._opened(self._sources.containers):
            look = look_at(file.shown, container.images, [("", container)], numbering.source)
            if look.numbering is not None and look.numbering != numbering:
                raise _mixed((self._looks[0].place, numbering), (file.shown, look.numbering))
            table = table_of([("", container)])[0] if numbering.table else {}
            yield _names_of(container.images, table, numbering)

    def _opened(self, files: Sequence[ContainerFile]) -> Iterator[tuple[ContainerFile, Container]]:
        """Open containers in order; one that cannot be opened fails later, as a unit."""

        def opened(file: ContainerFile) -> Container | None:
            try:
                return file.open()
            except SourceError:
                return None

        workers, ahead = (2, 1) if self._fetched else (_READERS, 2 * _READERS)  # few copies take room at one time
        opening = in_order(opened, files, workers=workers, ahead=ahead, one_core=False)
        for file, container in zip(files, opening, strict=True):
            if container is not None:
                try:
                    yield file, container
                finally:
                    container.close()


def _mixed(*found: tuple[str, Numbering | str]) -> SourceError:
    """Return the error for two places with other numberings, or with words for class folders."""
    (one, first), (other, second) = found
    sources = [each.source if isinstance(each, Numbering) else "folders" for each in (first, second)]
    choices = sources if sources[0] != sources[1] else []
    words = [_words_at(place, each) for place, each in found]
    return SourceError(
        f"{one} has {words[0]} for labels, {other} has {words[1]}; two numberings are never mixed: take "
        f"{' or '.join(f'--labels {choice}' for choice in (*choices, 'none'))}, or encode each into a folder of its own"
    )


def _words_at(place: str, found: Numbering | str) -> str:
    """Say what one place has for labels; the reader of Parquet files offers their column as if it were `.cls`."""
    if not isinstance(found, Numbering):
        return found
    return found.words.replace(".cls files", "its label column") if place.endswith(".parquet") else found.words


def _names_of(images: Sequence[SourceImage], table: Mapping[str, Label], numbering: Numbering) -> Counter[str]:
    values = (read_value(image, numbering, table) for image in images)
    return Counter(str(value) for value in values if value is not None)


def spread(items: Sequence[_T], count: int) -> Sequence[_T]:
    """Return up to `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _kind_of(values: Sequence[Label | None]) -> Literal["numbers", "names"] | None:
    """Tell numbers from names by what most labels are; None where there are none."""
    numbers = sum(isinstance(value, int) for value in values)
    names = sum(isinstance(value, str) for value in values)
    return "numbers" if numbers and numbers >= names else "names" if names else None


def _root_file(root: Container | str) -> bytes | None:
    if isinstance(root, Container):
        reader = root.files.get(_TABLE)
        return reader() if reader else None
    return read_small(f"{root.rstrip('/')}/{_TABLE}", None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} others" if len(names) > 3 else "")
