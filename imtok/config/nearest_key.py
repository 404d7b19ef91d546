"""Full names of all keys of a configuration, and those of them that a person may have meant by another name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from imtok.networks.union import KINDS as NETWORKS
from imtok.quantizer_config import KINDS as QUANTIZERS

_CLOSE = 0.6  # of 1, as `difflib` counts likeness
_MOST = 3
_ELSEWHERE = {  # names that other programs use, with imtok's key for the same purpose
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "steps", "num_steps", "max_steps", "iterations"), "images"),
    **dict.fromkeys(("resolution", "image_size", "img_size"), "size"),
    **dict.fromkeys(("codebook_size", "num_embeddings", "n_embed", "vocab_size"), "quantizer.num_codes"),
}
_KINDS: dict[str, Mapping[Any, type[BaseModel]]] = {"quantizer": QUANTIZERS, "network": NETWORKS}


def same_purpose(name: str, record: type[BaseModel]) -> str:
    """Return the key that does what `name` does in other programs; empty where there is none."""
    key = _ELSEWHERE.get(name, "")
    return key if key in _names(record) else ""


def nearest_keys(name: str, record: type[BaseModel]) -> list[str]:
    """Return the full names of the keys that `name` may stand for, the likeliest first; empty where none is near.

    These are keys of the same last part, else of words with these initials (`lr`), else of a similar whole name.
    """
    known = sorted(_names(record))
    parent, _, last = name.rpartition(".")

    def ends(key: str) -> str:
        return key.rpartition(".")[2]

    known_parent = any(key.startswith(f"{parent}.") for key in known)

    tests: tuple[Callable[[str], bool], ...] = (
        lambda key: f".{key}".endswith(f".{name}"),
        lambda key: ends(key) == last,
        lambda key: len(last) > 1 and "".join(word[0] for word in ends(key).split("_")) == last,
        lambda key: _likeness(ends(key), last) >= _CLOSE if known_parent else _likeness(key, name) >= _CLOSE,
    )
    for fits in tests:
        found = [key for key in known if fits(key)]
        if found:
            here = [key for key in found if parent and key.rpartition(".")[0] == parent]
            return here or sorted(found, key=lambda key: -_likeness(key, name))[:_MOST]
    return []


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def _names(record: type[BaseModel]) -> set[str]:
    return {key.removeprefix("tokenizer.") for key in _keys(record, ())}


def _keys(
    record: type[BaseModel], above: tuple[str, ...], around: frozenset[type[BaseModel]] = frozenset()
) -> Iterator[str]:
    """Walk the fields of a record and of all records in it; of a union of kinds, the fields of each kind."""
    for name, field in record.model_fields.items():
        inner = list(_KINDS[name].values()) if name in _KINDS else _records(field.annotation)
        if inner:
            for each in inner:
                if each not in around:  # a part of a quantizer may hold parts again
                    yield from _keys(each, (*above, name), around | {each})
        else:
            yield ".".join((*above, name))


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [record for part in typing.get_args(annotation) for record in _records(part)]
    return []
