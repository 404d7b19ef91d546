"""Create a token folder, or check that an existing one belongs to the same job."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imtok.data.labels import find_labels
from imtok.data.sources import find_sources
from imtok.encoding.inputs import Plan
from imtok.encoding.settings import Requested, Settings, check_tokenizer, describe, settle
from imtok.errors import SourceError, TokenizerError, TokensError, disk_errors
from imtok.files import check_locks, publish_once, write_atomically
from imtok.tokenizer import Tokenizer, load
from imtok.tokens.folder import (
    INFO,
    PLAN,
    TOKENIZER,
    PlanEntry,
    TokensInfo,
    find_shards,
    plan_to_bytes,
    read_info,
    read_plan,
)


@dataclass(frozen=True)
class Job:
    """Everything decided before the first image is read."""

    folder: Path
    plan: Plan
    settings: Settings
    info: TokensInfo  # as the folder has it


def prepare(sources: Sequence[str | Path], folder: Path, tokenizer: Tokenizer, requested: Requested) -> Job:
    """Create the token folder, or adopt one of the same inputs, tokenizer and options.

    Raises SourceError, ConfigError or TokensError, naming both sides, before anything is written.
    """
    fingerprint = tokenizer.fingerprint
    recorded = _recorded(folder)
    if recorded is not None:
        check_tokenizer(recorded, fingerprint, folder)
    settings = settle(requested, recorded, tokenizer, folder)
    found = find_sources(sources, settings.reading)
    labels = find_labels(
        found, settings.labels, known=recorded.class_names if recorded else (), reading=settings.reading
    )
    plan = Plan(found, settings.unit_size, labels)
    plan_bytes = plan_to_bytes(plan.entries())
    plan_hash = hashlib.sha256(plan_bytes).hexdigest()
    if recorded is None:
        ours = describe(settings, tokenizer, fingerprint, plan, plan_hash)
        check_locks()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not publish_once(folder / INFO, ours.to_bytes()):
            # Another process was first: now there is a folder to compare with.
            return prepare(sources, folder, tokenizer, requested)
        recorded = ours
    recorded = _publish_plan(folder, recorded, plan, plan_bytes, plan_hash)
    _publish_tokenizer(folder, tokenizer, fingerprint)
    return Job(folder, plan, settings, recorded)


def _recorded(folder: Path) -> TokensInfo | None:
    """Read the folder's imtok.json, None where the folder is still to be made; refuses foreign folders."""
    if (folder / INFO).exists():
        return read_info(folder)
    if folder.exists() and not folder.is_dir():
        raise TokensError(f"{folder}: a file, expected a folder for the tokens; give another name")
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise TokensError(f"{folder}: holds files and is no token folder; give an empty or a new one")
    return None


def _publish_plan(folder: Path, recorded: TokensInfo, plan: Plan, data: bytes, data_hash: str) -> TokensInfo:
    """Freeze the list of inputs, or compare it with the frozen one; return the folder's record."""
    path = folder / PLAN
    if data_hash == recorded.plan:
        if not publish_once(path, data) and path.read_bytes() != data:
            write_atomically(path, data)  # damaged, or left by a call that was killed below
        return recorded
    if not path.exists():
        raise TokensError(f"{path}: missing, and these inputs are not those it listed; encode into another folder")
    committed, _ = find_shards(folder)
    for number, (known, found) in enumerate(itertools.zip_longest(read_plan(folder), plan.entries()), 1):
        if known != found and not _is_replaced(known, found, committed):
            raise SourceError(
                f"{folder}: the inputs are not those it was begun with: {_difference(number, known, found)}; give the "
                "same inputs, or encode into another folder"
            )
    # In this order: stopped in between, the next call finds the plan equal and only imtok.json to write.
    write_atomically(path, data)
    amended = recorded.model_copy(update={"plan": data_hash})
    write_atomically(folder / INFO, amended.to_bytes())
    return amended


def _is_replaced(known: PlanEntry | None, found: PlanEntry | None, committed: set[int]) -> bool:
    """Tell whether an input has other bytes and nothing of it is committed: a cut tar that was copied again."""
    if known is None or found is None or known.unit in committed:
        return False
    return (known.unit, known.name) == (found.unit, found.name)


def _difference(number: int, known: PlanEntry | None, found: PlanEntry | None) -> str:
    if known is not None and found is not None and known.name == found.name:
        return f"{known.name} had {known.bytes} bytes, has {found.bytes}"
    return f"input {number} was {_named(known)}, is {_named(found)}"


def _named(entry: PlanEntry | None) -> str:
    return entry.name if entry else "none"


def _publish_tokenizer(folder: Path, tokenizer: Tokenizer, fingerprint: str) -> None:
    """Copy the tokenizer in; one that is there must make the same codes, its decoder may be another."""
    same = True
    for name, data in tokenizer.files().items():
        path = folder / TOKENIZER / name
        same &= publish_once(path, data) or path.read_bytes() == data
    if same:
        return
    try:
        found = load(folder / TOKENIZER).fingerprint
    except TokenizerError as error:
        raise TokensError(f"{error}; it is the copy in {folder}") from error
    if found != fingerprint:
        raise TokensError(
            f"{folder / TOKENIZER}: its fingerprint is {found[:12]}, this tokenizer's is {fingerprint[:12]}; encode "
            "into another folder"
        )
