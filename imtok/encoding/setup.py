"""Create a token folder, or check that an existing one belongs to the same job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imtok.data.address_lists import AddressList
from imtok.data.labels.origin import find_labels
from imtok.data.remote_files import RemoteFiles
from imtok.data.sources import find_sources
from imtok.encoding.growth import divide, labels_of_grown, refuse_lost_list
from imtok.encoding.inputs import Plan, PlanPart
from imtok.encoding.settings import Requested, Settings, check_tokenizer, describe, describe_extension, settle
from imtok.errors import SourceError, TokenizerError, TokensError
from imtok.tokenizer import Tokenizer
from imtok.tokens.folder import INFO, TOKENIZER, TokensInfo, read_info
from imtok.tokens.plan import Extension, plan_hash, plan_path, read_plans
from imtok.tokens.store import Store
from imtok.tokens.tokenizer_copy import load_copy


@dataclass(frozen=True)
class Job:
    """Everything decided before the first image is read."""

    store: Store  # of the token folder
    plan: Plan
    settings: Settings
    info: TokensInfo  # as the folder has it
    units_added: int = 0  # by this call

    def has_other_inputs(self) -> bool:
        """Return whether another process has meanwhile replaced inputs in the plan, which this job still has.

        That process found an input changed whose unit was not committed. If this one committed the unit as it was
        before, the plan and the shard would contradict each other for ever.
        """
        now = read_info(self.store)
        recorded = zip(now.extensions, self.info.extensions, strict=False)  # others may have come since
        return now.plan != self.info.plan or any(after.entries != before.entries for after, before in recorded)


def prepare(
    sources: Sequence[str | Path | AddressList],
    store: Store,
    tokenizer: Tokenizer,
    requested: Requested,
    remote: RemoteFiles | None = None,
) -> Job:
    """Create the token folder, or adopt one of the same inputs, tokenizer and options.

    Raises SourceError, ConfigError or TokensError, naming both sides, before anything is written.
    """
    fingerprint = tokenizer.fingerprint
    recorded = _recorded(store)
    if recorded is not None:
        check_tokenizer(recorded, fingerprint, store)
        if "torch" not in recorded.numerics.versions:
            raise TokensError(f"{store}: holds codes that were made elsewhere; encode into another folder")
    settings = settle(requested, recorded, tokenizer, store)
    found = find_sources(sources, settings.reading, known=_known_containers(store, recorded), remote=remote)
    labels = find_labels(
        found, settings.labels, known=recorded.all_class_names if recorded else None, reading=settings.reading
    )
    if labels.source == "folders" and requested.labels in (None, "auto") and settings.reading.rules > 1:
        labels = replace(labels, watched=True)
    whole = PlanPart(found.files, found.containers, settings.unit_size)
    if recorded is None:
        recorded = describe(settings, tokenizer, fingerprint, Plan([whole], labels, found), whole.entries_hash)
        store.make()
        if not store.publish_once(INFO, recorded.to_bytes()):
            # Another process was first: now there is a folder to compare with.
            return prepare(sources, store, tokenizer, requested, remote)
    parts, new = divide(whole, store, recorded)
    if new is not None:
        if refuse_lost_list(store, recorded):
            return prepare(sources, store, tokenizer, requested, remote)
        labels = labels_of_grown(labels, parts, new, found, settings, recorded, asked=requested.labels)
    plan = Plan(parts, labels, found)
    recorded = _publish_plans(store, recorded, plan)
    if new is not None:
        if not _publish_extension(store, recorded, describe_extension(settings, new, recorded, plan), new):
            return prepare(sources, store, tokenizer, requested, remote)
        plan = Plan([*parts, new], labels, found)
        recorded = read_info(store)
    else:
        recorded = _publish_class_names(store, recorded, labels.class_names)
    _publish_tokenizer(store, tokenizer, fingerprint)
    return Job(store, plan, settings, recorded, units_added=len(new) if new else 0)


def _recorded(store: Store) -> TokensInfo | None:
    """Read the folder's imtok.json, None where the folder is still to be made; refuses foreign folders."""
    if store.file(INFO).exists():
        return read_info(store)
    try:
        store.check_new()
    except TokensError:
        if not store.file(INFO).exists():
            raise
        return read_info(store)  # another process has begun the folder between the two looks
    return None


def _known_containers(store: Store, recorded: TokensInfo | None) -> dict[str, int]:
    """Return the names and bytes of the recorded containers, so that they keep their names beside new ones."""
    if recorded is None or not recorded.all_tars or not store.file(plan_path()).exists():
        return {}
    entries = read_plans(store, len(recorded.extensions))
    return {entry.tar: entry.bytes for entry in entries if entry.tar is not None}


def _publish_plans(store: Store, recorded: TokensInfo, plan: Plan) -> TokensInfo:
    """Write the lists of inputs that are missing or that name replaced inputs; return the folder's record."""
    for number, part in enumerate(plan.parts):
        path = plan_path(number)
        # In this order: stopped in between, the next call finds the plan equal and only imtok.json to write.
        if part.entries_hash != plan_hash(store, number):  # missing, damaged, or with inputs that were replaced
            extension = recorded.extensions[number - 1] if number else None
            if not store.publish_once(path, part.list_of_inputs(extension)):
                store.replace(path, part.list_of_inputs(extension))
        if not number and part.entries_hash != recorded.plan:
            recorded = recorded.model_copy(update={"plan": part.entries_hash})
            store.replace(INFO, recorded.to_bytes())
    return recorded


def _publish_class_names(store: Store, recorded: TokensInfo, names: tuple[str, ...]) -> TokensInfo:
    """Record names that recorded inputs did not show before, such as those in a tar that could not be read."""
    known = recorded.all_class_names
    if len(names) <= len(known):
        return recorded
    if recorded.extensions:  # whose names have the next numbers
        raise SourceError(
            f"{store}: class {names[len(known)]} has come to inputs that were there before; encode into another folder"
        )
    amended = recorded.model_copy(update={"class_names": names})
    store.replace(INFO, amended.to_bytes())
    return amended


def _publish_extension(store: Store, recorded: TokensInfo, extension: Extension, part: PlanPart) -> bool:
    """Add a list of inputs that came later; False where another process added one first."""
    if recorded.version == 1:  # so that an imtok that knows no extensions says what it needs
        store.replace(INFO, recorded.model_copy(update={"version": 2}).to_bytes())
    return store.publish_once(plan_path(extension.number), part.list_of_inputs(extension))


def _publish_tokenizer(store: Store, tokenizer: Tokenizer, fingerprint: str) -> None:
    """Copy the tokenizer in; one that is there must make the same codes, its decoder may be another."""
    same = True
    for name, data in tokenizer.files().items():
        path = f"{TOKENIZER}/{name}"
        same &= store.publish_once(path, data) or store.file(path).read_bytes() == data
    if same:
        return
    try:
        found = load_copy(store).fingerprint
    except TokenizerError as error:
        raise TokensError(f"{error}; it is the copy in {store}") from error
    if found != fingerprint:
        raise TokensError(
            f"{store.file(TOKENIZER)}: its fingerprint is {found[:12]}, this tokenizer's is {fingerprint[:12]}; encode "
            "into another folder"
        )
