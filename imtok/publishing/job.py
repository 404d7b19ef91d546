"""The job of a push: a tokenizer and its card become one commit of a repository of the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from imtok.errors import HubError
from imtok.hub import HubAddress, Unreachable, answer_of, client, is_hub_address, parse_address, without_bars
from imtok.publishing.card import model_card
from imtok.publishing.facts import Facts, gather

CARD = "README.md"

T = TypeVar("T")


@dataclass(frozen=True)
class PushReport:
    """The result of a push, or of the look before one."""

    repository: str  # ORG/NAME
    card: str
    files: tuple[str, ...]
    address: str = ""  # with the commit; empty where nothing was pushed
    url: str = ""
    notes: tuple[str, ...] = ()  # what a person should check


def push(
    path: str | Path,
    repository: str,
    *,
    license: str,  # noqa: A002
    private: bool = False,
    revision: str = "main",
    data: str = "",
    evaluations: Sequence[str | Path] = (),
    dry_run: bool = False,
) -> PushReport:
    """Push a tokenizer, a finished run or its best tokenizer to the Hub, with a model card, as one commit.

    `repository` is ORG/NAME; it is made where it is not there, private if `private`. `revision` is the branch, made
    too. `data` describes the training images, `evaluations` are folders of `imtok eval -o` or files of its `--json`.
    Files of that commit replace those of the same names, and the commits before stay. `dry_run` writes the card and
    asks the Hub nothing.

    Raises ConfigError without a licence, TrainingError on an unfinished run, TokenizerError where there is no
    tokenizer, and HubError where the Hub refuses or cannot be reached; nothing is published then.
    """
    address = _target(repository, revision)
    facts = gather(path, evaluations)
    card = model_card(facts, address.repository, license, data=data)
    files = {**facts.tokenizer.files(), CARD: card.encode()}
    notes = _notes(facts, license, data)
    if dry_run:
        return PushReport(address.repository, card, tuple(files), notes=notes)
    commit = _answered(address, lambda: _commit(address, files, _message(facts), private=private))
    pushed = HubAddress(address.repository, commit)
    url = f"{client().endpoint}/{address.repository}/tree/{commit}"
    return PushReport(address.repository, card, tuple(files), str(pushed), url, notes)


def _target(repository: str, revision: str) -> HubAddress:
    """Return the address of the branch that is pushed to."""
    text = repository if is_hub_address(repository) else f"hf://{repository}"
    address = parse_address(text)
    if address.path or address.revision:
        raise HubError(f"{repository}: expected ORG/NAME; a branch is named by --revision")
    return parse_address(f"{address}@{revision}")


def _commit(address: HubAddress, files: dict[str, bytes], message: str, *, private: bool) -> str:
    """Make repository and branch where they are not there, commit the files, and return the commit."""
    from huggingface_hub import CommitOperationAdd, get_token

    api, name = client(), address.repository
    if not get_token():
        raise HubError(f"hf://{name}: a push needs a token that may write; log in by `hf auth login` or set HF_TOKEN")
    answer_of(address, lambda: api.create_repo(name, private=private or None, exist_ok=True))
    if private and not answer_of(address, lambda: api.model_info(name)).private:
        raise HubError(f"hf://{name}: is public already, and --private was given; make it private at the Hub first")
    if address.revision != "main":
        answer_of(address, lambda: api.create_branch(name, branch=address.revision, exist_ok=True))
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()]
    with without_bars():
        info: Any = answer_of(
            address,
            lambda: api.create_commit(name, operations, commit_message=message, revision=address.revision),
        )
    return str(info.oid)


def _answered(address: HubAddress, call: Callable[[], T]) -> T:
    """Return what a call returns; no answer of the Hub becomes HubError."""
    try:
        return call()
    except Unreachable as error:
        why = "HF_HUB_OFFLINE is set" if error.forbidden else f"the Hub cannot be reached ({error})"
    raise HubError(f"hf://{address.repository}: nothing was published, as {why}; run the same command again later")


def _message(facts: Facts) -> str:
    return f"Tokenizer of imtok, fingerprint {facts.tokenizer.fingerprint[:12]}"


def _notes(facts: Facts, license: str, data: str) -> tuple[str, ...]:  # noqa: A002
    """Name what a person should check before others rely on the card."""
    origin, notes = facts.tokenizer.config.origin, []
    if origin and origin.license and origin.license.strip().lower() != license.strip().lower():
        notes.append(f"the weights come from others under {origin.license}; check that {license} is yours to give")
    if not data:
        notes.append("the card says nothing about the images that it was trained on; --data TEXT does")
    if not facts.measured:
        notes.append("the card has no metrics; --eval EVAL takes a folder of `imtok eval -o`")
    return tuple(notes)
