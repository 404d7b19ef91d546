"""The inputs of a call held against those that a token folder has recorded.

Inputs that are recorded must be there as they were; what is new becomes a part of its own. So a set that only grows
keeps its units byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imtok.data.containers import ImageFile, LostImage
from imtok.data.labels.origin import LabelChoice, Labels, find_labels
from imtok.data.sources import ContainerFile, Sources
from imtok.encoding.inputs import PlanPart
from imtok.encoding.settings import Settings
from imtok.errors import SourceError, TokensError
from imtok.tokens.folder import TokensInfo, find_shards
from imtok.tokens.plan import PlanEntry, plan_path, read_plan
from imtok.tokens.store import Store

_Input = ImageFile | LostImage | ContainerFile


def divide(whole: PlanPart, store: Store, recorded: TokensInfo) -> tuple[list[PlanPart], PlanPart | None]:
    """Return the recorded parts of the inputs of a call, and what is new as a part, None where nothing is.

    Raises SourceError where a recorded input has vanished, or has other bytes while its unit is committed, and
    TokensError where a list of inputs is missing or damaged.
    """
    if not recorded.extensions and whole.entries_hash == recorded.plan:
        return [whole], None
    taken = _Inputs(whole)
    committed, _ = find_shards(store)
    parts = [_recorded_part(number, store, recorded, taken, committed) for number in range(recorded.parts)]
    files, containers = taken.rest()
    new = PlanPart(files, containers, recorded.unit_size, recorded.all_units)
    return parts, new if len(new) else None


def refuse_lost_list(store: Store, recorded: TokensInfo) -> bool:
    """Look for units beyond all lists of inputs, whose numbers new inputs would take.

    Raises TokensError where their list is lost. Returns True where another process has just published it.
    """
    beyond = [unit for unit in find_shards(store)[0] if unit >= recorded.all_units]
    path = store.file(plan_path(recorded.parts))
    if beyond and not path.exists():
        raise TokensError(
            f"{path}: missing, and unit {min(beyond)} is in no other list of inputs; copy the folder again, or encode "
            "into another"
        )
    return bool(beyond)


def labels_of_grown(
    labels: Labels,
    parts: Sequence[PlanPart],
    found: Sources,
    settings: Settings,
    recorded: TokensInfo,
    *,
    asked: LabelChoice | None,
) -> Labels:
    """Return the labels of a job with new inputs, with a note where a job without labels leaves theirs out.

    Raises SourceError where recorded inputs would have other labels than they had before the new ones came.
    """
    if settings.reading.rules == 1:
        return labels
    if labels.source == "none":
        return labels if asked == "none" else replace(labels, notes=(*labels.notes, *_left_out(found, settings)))
    files = tuple(file for part in parts for file in part.files)
    containers = tuple(container for part in parts for container in part.containers)
    earlier = replace(found, files=files, containers=containers)
    before = find_labels(earlier, settings.labels, known=recorded.all_class_names, reading=settings.reading)
    if before.found and labels.found and before.numbering != labels.numbering:
        raise SourceError(
            f"the new inputs have {labels.numbering.words} for labels, the job has {before.numbering.words}; two "
            "numberings are never mixed: encode the new ones into a folder of their own"
        )
    for file in files if labels.source == "folders" else ():
        if before.label(file, None) != labels.label(file, None):
            raise _moved(file.key)
    if before.inner_folders and labels.inner_folders:
        classes = labels.inner_folders.classes
        for path, name in before.inner_folders.classes.items():
            if classes.get(path) != name:
                raise _moved(path)
    return labels


def _moved(name: str) -> SourceError:
    return SourceError(
        f"{name}: would be of another class since new folders have come; encode them into a folder of their own"
    )


def _left_out(found: Sources, settings: Settings) -> tuple[str, ...]:
    """Say that labels are there which the job does not take."""
    try:
        shown = find_labels(found, reading=settings.reading)
    except SourceError:
        words = "labels of several kinds"
    else:
        words = "class folders" if shown.source == "folders" else shown.numbering.words
        if shown.source == "none" or not shown.found:
            return ()
    return (f"the job was begun without, so it leaves out {words}; encode into another folder to have them",)


class _Inputs:
    """The inputs of a call by name, from which recorded ones are taken."""

    def __init__(self, found: PlanPart) -> None:
        self._files = {file.key: file for file in found.files}
        self._containers = {file.name: file for file in found.containers}

    def take(self, entry: PlanEntry) -> _Input | None:
        if entry.tar is not None:
            return self._containers.pop(entry.tar, None)
        return self._files.pop(str(entry.key), None)

    @property
    def images(self) -> bool:
        """Whether there are images in folders."""
        return bool(self._files)

    def longer(self, entry: PlanEntry) -> str | None:
        """Return the key that an image has where several folders are given, None where there is no such key."""
        names = (key for key in self._files if key.endswith(f"/{entry.key}"))
        return next(names, None) if entry.key is not None else None

    def rest(self) -> tuple[Sequence[ImageFile | LostImage], Sequence[ContainerFile]]:
        """Return what nobody took, in order."""
        return tuple(self._files.values()), tuple(self._containers.values())


def _recorded_part(number: int, store: Store, recorded: TokensInfo, inputs: _Inputs, committed: set[int]) -> PlanPart:
    path = store.file(plan_path(number))
    record = recorded.extensions[number - 1] if number else recorded
    if not path.exists():
        raise TokensError(f"{path}: missing, and these inputs are not those it listed; encode into another folder")
    files: list[ImageFile | LostImage] = []
    containers: list[ContainerFile] = []
    for entry in read_plan(store, number):
        found = inputs.take(entry)
        # Other bytes are a cut tar that was copied again, where nothing of it is committed.
        if found is None or (found.size != entry.bytes and entry.unit in committed):
            raise SourceError(
                f"{store}: the inputs are not those it was begun with: {_difference(entry, found, inputs)}; give the "
                "same inputs, with new ones if there are any, or encode into another folder"
            )
        if isinstance(found, ContainerFile):
            containers.append(found)
        else:
            files.append(found)
    if (len(files), len(containers)) != (record.images, record.tars):  # lines are lost
        raise TokensError(
            f"{path}: damaged, it lists {len(files) + len(containers)} inputs of {record.images + record.tars}; copy "
            "the folder again, or encode into another"
        )
    return PlanPart(files, containers, recorded.unit_size, record.first_unit)


def _difference(known: PlanEntry, found: _Input | None, inputs: _Inputs) -> str:
    if found is None and (renamed := inputs.longer(known)):
        return f"{known.name} is {renamed} beside other folders, put the new images into its own folder"
    if found is None and known.tar is not None and inputs.images:
        return f"{known.name} is missing (in a folder that holds images, containers are not read: name them)"
    if found is None:
        return f"{known.name} is missing"
    return f"{known.name} had {known.bytes} bytes, has {found.size}"
