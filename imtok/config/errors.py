"""Errors of configuration in one line: which key, what is wrong, and which key was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError

from imtok.networks.union import KINDS as NETWORKS
from imtok.quantizer_config import KINDS as QUANTIZERS

# By the names that stand in the places of pydantic's errors.
KINDS: dict[int | str, type[BaseModel]] = {**QUANTIZERS, **NETWORKS}


def first_problem(error: ValidationError, record: type[BaseModel], also: Iterable[str] = ()) -> str:
    """Describe the first thing that is wrong in a line; keys in `also` are known at the top level too."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"] if part not in KINDS]
    name = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _field_names(record, problem["loc"][:-1])
        if len(place) == 1:
            known += also
        kind = next((f" for kind {part}" for part in reversed(problem["loc"]) if part in KINDS), "")
        others = _kinds_that_know(place[-1], NETWORKS if "network" in place else QUANTIZERS) if kind else []
        whose = ".".join([*place[:-1], "kind"]).removeprefix("tokenizer.")
        hint = f"; it belongs to {whose}={' or '.join(others)}" if others else did_you_mean(place[-1], known)
        return f"{name}: unknown key{kind}{hint}; known here: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    if isinstance(found, str | int | float | list | tuple | bool):
        message += f" (found {found!r})"
    return f"{name}: {message}" if name else message


def _field_names(record: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """List the keys known at a place; the kind stands in the place after `quantizer` or `network`."""
    for part in place:
        annotation = KINDS[part] if part in KINDS else record.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            record = annotation
    return [*record.model_fields, *getattr(record, "former_names", ())]


def _kinds_that_know(key: str, kinds: Mapping[int | str, type[BaseModel]]) -> list[str]:
    """List the kinds of quantizer, or of network, that have this field."""
    return [str(kind) for kind, record in kinds.items() if key in record.model_fields]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Name the closest of `names`, as the end of a sentence; empty where none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
