"""The definitions of all figures, as their records give them, with the values where a record stands alone."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin

from imtok.analysis.figures import Figures, definition
from imtok.quantizer_config import Record
from imtok.report.markup import Markup, element, joined
from imtok.report.style import number

GLOSSARY = joined(
    "Every figure by its name in ", element("code", "imtok stats --json", class_="command"), ". Entropies are in bits."
)
_PLAIN = (bool, int, float, str)


def glossary(figures: Figures | None = None) -> Markup:
    """Every figure under its name in `imtok stats --json`; with values where `figures` are given."""
    return element("div", *_record("", Figures, figures, set()), class_="glossary")


def _record(path: str, kind: type[Record], value: Record | None, told: set[type[Record]]) -> list[Markup]:
    """One record's figures, then those of the records inside it; a kind of record is told once."""
    told.add(kind)
    figures, inner = [], []
    for name, field in kind.model_fields.items():
        own = getattr(value, name, None)
        below = _records(field.annotation)
        if definition(kind, name):
            figures.append(_figure(name, own, definition(kind, name)))
        for record in below:
            single = own if isinstance(own, Record) else None
            if record not in told or single is not None:
                inner += _record(f"{path}{name}.", record, single, told)
    heading = element("h3", element("code", path.rstrip(".")) if path else "all codes together")
    text = element("p", (kind.__doc__ or "").strip()) if path else None
    block = [element("div", heading, text, element("dl", *figures))] if figures else []
    return [*_split(block, figures, heading, text), *inner]


def _split(block: list[Markup], figures: list[Markup], heading: Markup, text: Markup | None) -> list[Markup]:
    """A block that keeps its heading with the first figure and may break between the others."""
    if not block:
        return []
    return [element("div", heading, text, element("dl", figures[0])), *(element("dl", each) for each in figures[1:])]


def _figure(name: str, value: Any, text: str) -> Markup:
    shown = element("span", _written(value)) if isinstance(value, _PLAIN) else None
    return element("div", element("dt", element("code", name), shown), element("dd", text))


def _written(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return number(value, 0 if abs(value) >= 1000 else 2 if abs(value) >= 10 else 4)
    return value if len(value) <= 24 else ""


def _records(annotation: Any) -> list[type[Record]]:
    """The record classes in a field's type: itself, an optional one's, or a list's."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    if get_origin(annotation) in (list, UnionType) or isinstance(annotation, UnionType):
        return [each for part in get_args(annotation) for each in _records(part)]
    return []
