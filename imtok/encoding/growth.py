"""The inputs of a call held against those that a token folder has recorded.

Inputs that are recorded must be there as they were; what is new becomes a part of its own. So a set that only grows
keeps its units byte for byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from imtok.data.archives.packed import packed
from imtok.data.chosen_images import others
from imtok.data.containers import SourceImage
from imtok.data.labels.origin import LabelChoice, Labels, find_labels
from imtok.data.sources import ContainerFile, Sources
from imtok.encoding.inputs import PlanPart
from imtok.encoding.matching import Images, Inputs
from imtok.encoding.settings import Settings
from imtok.errors import SourceError, TokensError
from imtok.tokens.folder import TokensInfo, find_shards
from imtok.tokens.plan import PlanEntry, plan_path, read_plan_rows
from imtok.tokens.store import Store


def divide(whole: PlanPart, store: Store, recorded: TokensInfo) -> tuple[list[PlanPart], PlanPart | None]:
    """Return the recorded parts of the inputs of a call, and what is new as a part, None where nothing is.

    Raises SourceError where a recorded input has vanished, or has other bytes while its unit is committed, and
    TokensError where a list of inputs is missing or damaged.
    """
    if not recorded.extensions and whole.entries_hash == recorded.plan:
        return [whole], None
    taken = Inputs(whole)
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
    new: PlanPart,
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
    alone = parts[0].files if len(parts) == 1 else None  # most often, and then they need no list of their own
    files = cast(Images, packed(alone) if alone else others(packed(found.files), packed(new.files)))
    containers = tuple(container for part in parts for container in part.containers)
    earlier = replace(found, files=files, containers=containers)
    before = find_labels(earlier, settings.labels, known=recorded.all_class_names, reading=settings.reading)
    if before.found and labels.found and before.numbering != labels.numbering:
        raise SourceError(
            f"the new inputs have {labels.numbering.words} for labels, the job has {before.numbering.words}; two "
            "numberings are never mixed: encode the new ones into a folder of their own"
        )
    for file in _one_of_each_folder(files) if labels.source == "folders" else ():
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


def _one_of_each_folder(files: Images) -> Iterator[SourceImage]:
    """Yield the first image of each folder, whose images all have one class."""
    last = None
    for index, key in enumerate(files.keys):
        folder = key.rpartition("/")[0]
        if folder != last:
            last = folder
            yield files.image(index)


def _recorded_part(number: int, store: Store, recorded: TokensInfo, inputs: Inputs, committed: set[int]) -> PlanPart:
    path = store.file(plan_path(number))
    record = recorded.extensions[number - 1] if number else recorded
    if not path.exists():
        raise TokensError(f"{path}: missing, and these inputs are not those it listed; encode into another folder")
    positions = array("I")
    containers: list[ContainerFile] = []
    for row in read_plan_rows(store, number):
        unit, key, size = row if isinstance(row, tuple) else (row.unit, str(row.key).encode(), row.bytes)
        if not isinstance(row, tuple) and row.tar is not None:
            container = inputs.take_container(row.tar)
            found = None if container is None else container.size
            containers += [container] if container else []
        else:
            position = inputs.take_image(key)
            found = None if position is None else inputs.size(position)
            positions.append(position or 0)
        # Other bytes are a cut tar that was copied again, where nothing of it is committed.
        if found is None or (found != size and unit in committed):
            entry = PlanEntry(unit=unit, key=key.decode(), bytes=size) if isinstance(row, tuple) else row
            raise SourceError(
                f"{store}: the inputs are not those it was begun with: {_difference(entry, found, inputs)}; give the "
                "same inputs, with new ones if there are any, or encode into another folder"
            )
    if (len(positions), len(containers)) != (record.images, record.tars):  # lines are lost
        raise TokensError(
            f"{path}: damaged, it lists {len(positions) + len(containers)} inputs of {record.images + record.tars}; "
            "copy the folder again, or encode into another"
        )
    return PlanPart(inputs.images(positions), containers, recorded.unit_size, record.first_unit)


def _difference(known: PlanEntry, found: int | None, inputs: Inputs) -> str:
    if found is None and (renamed := inputs.longer(known)):
        return f"{known.name} is {renamed} beside other folders, put the new images into its own folder"
    if found is None and known.tar is not None and inputs.images_left:
        return f"{known.name} is missing (in a folder that holds images, containers are not read: name them)"
    if found is None:
        return f"{known.name} is missing"
    return f"{known.name} had {known.bytes} bytes, has {found}"
