"""The inputs of a call held against those that a token folder has recorded.

Inputs that are recorded must be there as they were; what is new becomes a part of its own. So a set that only grows
keeps its units byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from imtok.data.containers import ImageFile, LostImage
from imtok.data.sources import ContainerFile, Sources
from imtok.encoding.inputs import PlanPart
from imtok.errors import SourceError, TokensError
from imtok.tokens.folder import TokensInfo, find_shards
from imtok.tokens.plan import PlanEntry, plan_path, plan_to_bytes, read_plan

_Input = ImageFile | LostImage | ContainerFile


def divide(found: Sources, folder: Path, recorded: TokensInfo) -> tuple[list[PlanPart], PlanPart | None]:
    """Return the recorded parts, and what is new as a part, None where nothing is.

    Raises SourceError where a recorded input has vanished, or has other bytes while its unit is committed.
    """
    whole = PlanPart(found.files, found.containers, recorded.unit_size)
    if not recorded.extensions and _is(whole, recorded.plan):
        return [whole], None
    taken = _Inputs(found)
    committed, _ = find_shards(folder)
    parts = [
        _recorded_part(number, first, folder, recorded, taken, committed) for number, first in _first_units(recorded)
    ]
    files, containers = taken.rest()
    new = PlanPart(files, containers, recorded.unit_size, recorded.all_units)
    return parts, new if len(new) else None


class _Inputs:
    """The inputs of a call by name, from which recorded ones are taken."""

    def __init__(self, found: Sources) -> None:
        self._files = {file.key: file for file in found.files}
        self._containers = {file.name: file for file in found.containers}

    def take(self, entry: PlanEntry) -> _Input | None:
        if entry.tar is not None:
            return self._containers.pop(entry.tar, None)
        return self._files.pop(str(entry.key), None)

    def rest(self) -> tuple[Sequence[ImageFile | LostImage], Sequence[ContainerFile]]:
        """Return what nobody took, in order."""
        return tuple(self._files.values()), tuple(self._containers.values())


def _first_units(recorded: TokensInfo) -> Iterator[tuple[int, int]]:
    yield 0, 0
    for extension in recorded.extensions:
        yield extension.number, extension.first_unit


def _is(part: PlanPart, plan: str) -> bool:
    return hashlib.sha256(plan_to_bytes(part.entries())).hexdigest() == plan


def _recorded_part(
    number: int, first_unit: int, folder: Path, recorded: TokensInfo, inputs: _Inputs, committed: set[int]
) -> PlanPart:
    path = folder / plan_path(number)
    if not path.exists():
        raise TokensError(f"{path}: missing, and these inputs are not those it listed; encode into another folder")
    files: list[ImageFile | LostImage] = []
    containers: list[ContainerFile] = []
    for entry in read_plan(folder, number):
        found = inputs.take(entry)
        # Other bytes are a cut tar that was copied again, where nothing of it is committed.
        if found is None or (found.size != entry.bytes and entry.unit in committed):
            raise SourceError(
                f"{folder}: the inputs are not those it was begun with: {_difference(entry, found)}; give the same "
                "inputs, to which others may have come, or encode into another folder"
            )
        if isinstance(found, ContainerFile):
            containers.append(found)
        else:
            files.append(found)
    return PlanPart(files, containers, recorded.unit_size, first_unit)


def _difference(known: PlanEntry, found: _Input | None) -> str:
    if found is None:
        return f"{known.name} is missing"
    return f"{known.name} had {known.bytes} bytes, has {found.size}"
