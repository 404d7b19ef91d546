"""Nested mappings laid over each other, and the checked records that they become."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from imtok.config.errors import first_problem
from imtok.config.records import TokenizerConfig, TrainConfig
from imtok.errors import ConfigError
from imtok.networks.conv_config import current_names
from imtok.quantizer_config import KINDS
from imtok.records import Record

_R = TypeVar("_R", bound=Record)


def merge(base: Mapping[str, Any], over: Mapping[str, Any], *, partial: bool = False) -> dict[str, Any]:
    """Lay `over` upon `base`, key by key; a quantizer or network of another kind replaces the whole of it.

    A network of `base` without its kind is `conv`, or of a kind not yet known where `base` is `partial`.
    """
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            before = old.get("kind", "conv" if key == "network" and not partial else None)
            if key == "network" and before in ("conv", None):
                old, value = current_names(old), current_names(value)
            changes_kind = before is not None and value.get("kind", before) != before
            result[key] = dict(value) if changes_kind else merge(old, value, partial=partial)
        else:
            result[key] = value
    return result


def lift(values: Mapping[str, Any]) -> dict[str, Any]:
    """Let a file write `quantizer:`, `network:` and `size:` at its top level, as `--set` does."""
    lifted = {key: value for key, value in values.items() if key in TokenizerConfig.model_fields}
    rest = {key: value for key, value in values.items() if key not in lifted}
    return merge(rest, {"tokenizer": lifted}) if lifted else rest


def load_train_config(values: Mapping[str, Any], origin: str = "configuration") -> TrainConfig:
    """Return a checked TrainConfig; raises ConfigError with one line for the first thing that is wrong."""
    values = lift(values)
    tokenizer = values.get("tokenizer")
    if isinstance(tokenizer, Mapping) and isinstance(tokenizer.get("quantizer"), Mapping):
        quantizer = _with_kind(tokenizer["quantizer"], f"{origin}: tokenizer.quantizer")
        values = {**values, "tokenizer": {**tokenizer, "quantizer": quantizer}}
    return _checked(TrainConfig, values, origin)


def load_tokenizer_config(values: Mapping[str, Any], origin: str) -> TokenizerConfig:
    """Return a checked TokenizerConfig; raises ConfigError, in which `origin` names the file."""
    return _checked(TokenizerConfig, values, origin)


def _checked(record: type[_R], values: Mapping[str, Any], origin: str) -> _R:
    try:
        return record.model_validate(values)
    except ValidationError as error:
        # Keys of the tokenizer may leave out their leading `tokenizer.`.
        also = list(TokenizerConfig.model_fields) if record is TrainConfig else []
        raise ConfigError(f"{origin}: {first_problem(error, record, also)}") from error


def full_key(name: str) -> list[str]:
    """Split a dotted key; those of the tokenizer may leave out the leading `tokenizer.`."""
    parts = name.split(".")
    return ["tokenizer", *parts] if parts[0] in TokenizerConfig.model_fields else parts


def _with_kind(quantizer: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Find the kind of a quantizer, or of a part of one, that is given without it, from its fields.

    Misspelt fields count too. Where several kinds have all fields, the kind is the first of `fsq` and `vq`; raises
    ConfigError where it is neither.
    """
    known = dict(quantizer)
    if "kind" not in known:
        likeness = {str(kind): _likeness(known, record) for kind, record in KINDS.items()}
        likeliest = [kind for kind, found in likeness.items() if found == max(likeness.values())]
        if len(likeliest) > 1 and likeliest[0] not in ("fsq", "vq"):
            raise ConfigError(f"{place}: {' and '.join(likeliest)} have {', '.join(known)}; say which by kind")
        known = {"kind": likeliest[0], **known}
    if isinstance(known.get("part"), Mapping):
        known["part"] = _with_kind(known["part"], f"{place}.part")
    return known


def _likeness(values: Mapping[str, Any], record: type[Record]) -> tuple[int, int]:
    """Count the keys that are fields of a record, and those that nearly are."""
    names = record.model_fields
    return sum(key in names for key in values), sum(bool(difflib.get_close_matches(str(k), names)) for k in values)
