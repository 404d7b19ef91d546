"""Errors of configuration in one line: which key, what is wrong, and which key was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from imtok.config.nearest_key import nearest_keys, same_purpose
from imtok.networks.union import KINDS as NETWORKS
from imtok.quantizer_config import KINDS as QUANTIZERS

# By the names that stand in the places of pydantic's errors.
KINDS: dict[int | str, type[BaseModel]] = {**QUANTIZERS, **NETWORKS}

_BRANCHES = {
    "bool",
    "int",
    "str",
    "float",
    "literal['auto']",
    "literal['auto',1,2]",
}  # of unions, which pydantic names like keys


def first_problem(error: ValidationError, record: type[BaseModel], also: Iterable[str] = ()) -> str:
    """Describe the first thing that is wrong in a line; keys in `also` are known at the top level too."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"] if part not in KINDS and part not in _BRANCHES]
    name = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _field_names(record, problem["loc"][:-1])
        if len(place) == 1:
            known += also
        kind = next((f" for kind {part}" for part in reversed(problem["loc"]) if part in KINDS), "")
        others = _kinds_that_know(place[-1], NETWORKS if "network" in place else QUANTIZERS) if kind else []
        whose = ".".join([*place[:-1], "kind"]).removeprefix("tokenizer.")
        full = name.removeprefix("tokenizer.")
        if others:
            hint = f"; it belongs to {whose}={' or '.join(others)}"
        elif meant := same_purpose(full, record):
            hint = f"; did you mean {meant}?"
        else:
            hint = did_you_mean(place[-1], known)
        if not hint and (near := nearest_keys(".".join([full, *_only_keys(problem["input"])]), record)):
            hint = f"; did you mean {' or '.join(near)}?"
        return f"{name}: unknown key{kind}{hint}; known here: {', '.join(known)}"
    expected = " or ".join(filter(None, map(_expectation, _of_one_value(error.errors())))) or None
    if expected is None:
        message = problem["msg"].removeprefix("Value error, ")
        return f"{name}: {message}" if name else message
    given = problem["input"]
    if isinstance(given, Mapping) or problem["type"] == "missing":
        given = given.get("kind") if problem["type"].startswith("union_tag") else None
        found = f" of kind {given}" if given is not None else ""
    else:
        found = f" {_as_written(given)}"
    return f"{name}{found}: expected {expected}"


def _of_one_value(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Take the first problem and all others of the same value, one for each branch of a union."""
    first = problems[0]["loc"]
    if first and first[-1] in _BRANCHES:
        return [problem for problem in problems if problem["loc"][:-1] == first[:-1]]
    return problems[:1]


def _expectation(problem: ErrorDetails) -> str | None:
    """Say in plain words what was expected instead of a value; None where the message says so itself."""
    kind, context = problem["type"], problem.get("ctx", {})
    for beginning, words in _TYPES.items():
        if kind.startswith(beginning):
            return words
    if kind in ("too_short", "too_long"):
        count = context["min_length" if kind == "too_short" else "max_length"]
        return f"{count} or {'more' if kind == 'too_short' else 'fewer'} values in a list"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}".replace("'", "")
    for bound, words in _BOUNDS.items():
        if bound in context:
            return words.format(f"{context[bound]:g}")
    return None


_BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}
_TYPES = {  # by the beginning of the name that pydantic has for an error
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list, as [8,5,5,5]",
    "list": "a list, as [8,5,5,5]",
    "model": "keys of its own, as {key: value}",
    "dict": "keys of its own, as {key: value}",
    "missing": "a value, and there is none",
}


def _as_written(value: object) -> str:
    """Write a value as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_written, value))}]"
    return str(value)


def _only_keys(value: object) -> list[str]:
    """List the nested keys of mappings that have one key each, as a dotted key makes them."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, inner),) = value.items()
        return [str(key), *_only_keys(inner)]
    return []


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
