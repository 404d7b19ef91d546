"""The definitions of all figures, as their records give them, with the values where a record stands alone."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin

from imtok.analysis.formatting import significant
from imtok.analysis.references import REFERENCES
from imtok.analysis.statistics import Statistics, definition
from imtok.records import Record
from imtok.report.markup import Markup, element, joined
from imtok.report.style import number

GLOSSARY = joined(
    "Every figure by its name in ", element("code", "imtok stats --json", class_="command"), ". Entropies are in bits."
)
_PLAIN = (bool, int, float, str)


def glossary(statistics: Statistics | None = None) -> Markup:
    """Every figure under its name in `imtok stats --json`, with values where `figures` are given, and the sources."""
    sources = element("ul", *(element("li", reference) for reference in REFERENCES))
    return element(
        "div",
        *_record("", Statistics, statistics, set()),
        element("div", element("h3", "sources"), sources),
        class_="glossary",
    )


def _record(path: str, kind: type[Record], value: Record | None, told: set[type[Record]]) -> list[Markup]:
    """One record's figures, then those of the records inside it; a record without values is told once for its kind."""
    told.add(kind)
    statistics, inner = [], []
    for name, field in kind.model_fields.items():
        own = getattr(value, name, None)
        if definition(kind, name):
            statistics.append(_figure(name, own, definition(kind, name)))
        single = own if isinstance(own, Record) else None
        for below in _records(field.annotation):
            if below not in told or single is not None:
                inner += _record(f"{path}{name}.", below, single, told)
    extra = value.model_extra or {} if value is not None else {}
    statistics += [_figure(name, own, definition(kind, name)) for name, own in extra.items()]
    return [*_block(path.rstrip("."), kind, statistics), *inner]


def _block(path: str, kind: type[Record], statistics: list[Markup]) -> list[Markup]:
    """Figures under their record's path and sentence; only the first is tied to these where columns break."""
    if not statistics:
        return []
    heading = element("h3", element("code", path) if path else "all codes together")
    text = element("p", kind.__doc__) if path else None
    return [
        element("div", heading, text, element("dl", statistics[0])),
        *(element("dl", each) for each in statistics[1:]),
    ]


def _figure(name: str, value: Any, text: str) -> Markup:
    shown = element("span", _written(value)) if isinstance(value, _PLAIN) else None
    return element("div", element("dt", element("code", name), shown), element("dd", text))


def _written(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return significant(value).replace("-", "−") if abs(value) < 10 else number(value, 2 if abs(value) < 1000 else 0)
    return value if len(value) <= 24 else ""


def _records(annotation: Any) -> list[type[Record]]:
    """The record classes in a field's type: itself, an optional one's, or a list's."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    if get_origin(annotation) in (list, UnionType) or isinstance(annotation, UnionType):
        return [each for part in get_args(annotation) for each in _records(part)]
    return []
