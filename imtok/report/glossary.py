"""The definitions of all statistics, with their sources, and with the values where a record occurs once."""

from __future__ import annotations

from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from imtok.analysis.formatting import number, significant
from imtok.analysis.statistics import Statistics, definition
from imtok.records import Record

REFERENCES = (  # that the definitions name by author and year
    "Chao, 1984. Nonparametric estimation of the number of classes in a population. Scand. J. of Statistics.",
    "Gini, 1912. Variabilità e mutabilità.",
    "Heaps, 1978. Information retrieval: computational and theoretical aspects.",
    "Jelinek et al., 1977. Perplexity: a measure of the difficulty of speech recognition tasks. Journal of the ASA.",
    "Kim et al., 2020. Instability of successive deep image compression. ACM Multimedia.",
    "Kullback & Leibler, 1951. On information and sufficiency. Annals of Mathematical Statistics.",
    "MacKay & Peto, 1995. A hierarchical Dirichlet language model. Natural Language Engineering.",
    "Miller, 1955. Note on the bias of information estimates. Information Theory in Psychology.",
    "Pearson, 1901. On lines and planes of closest fit to systems of points in space. Philosophical Magazine.",
    "Roy & Vetterli, 2007. The effective rank: a measure of effective dimensionality. EUSIPCO.",
    "Shannon, 1948. A mathematical theory of communication. Bell System Technical Journal.",
    "Wang et al., 2004. Image quality assessment: from error visibility to structural similarity. IEEE TIP.",
    "Zhang, 2019. Making convolutional networks shift-invariant again. ICML.",
    "Zhu et al., 2024. Addressing representation collapse in vector quantized models with one linear layer (SimVQ).",
    "Zipf, 1949. Human behavior and the principle of least effort.",
)


class Entry(NamedTuple):
    """One statistic."""

    name: str
    value: str | None
    definition: str


class Block(NamedTuple):
    """The statistics of one record."""

    path: str  # to the record in `imtok stats --json`; empty for the outermost one
    text: str
    entries: list[Entry]


def glossary(statistics: Statistics) -> list[Block]:
    """Define every statistic under its name in `imtok stats --json`."""
    return [block for block in _blocks("", Statistics, statistics, set()) if block.entries]


def _blocks(path: str, kind: type[Record], value: Record | None, defined: set[type[Record]]) -> list[Block]:
    """One record's block, then those of the records inside it; a record without values is defined once for its kind."""
    defined.add(kind)
    block, inner = Block(path.rstrip("."), kind.__doc__ or "", []), []
    extra = value.model_extra if value is not None else None  # metrics without a field of their own
    for name in (*kind.model_fields, *(extra or ())):
        own = getattr(value, name, None)
        if definition(kind, name):
            block.entries.append(Entry(name, _written(own), definition(kind, name)))
        single = own if isinstance(own, Record) else None
        for below in _records(kind.model_fields[name].annotation) if name in kind.model_fields else ():
            if below not in defined or single is not None:
                inner += _blocks(f"{path}{name}.", below, single, defined)
    return [block, *inner]


def _written(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return significant(value).replace("-", "−") if abs(value) < 10 else number(value, 2 if abs(value) < 1000 else 0)
    return value if isinstance(value, str) and len(value) <= 24 else None


def _records(annotation: Any) -> list[type[Record]]:
    """The record classes in a field's type: itself, an optional one's, or a list's."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    if get_origin(annotation) in (list, UnionType) or isinstance(annotation, UnionType):
        return [each for part in get_args(annotation) for each in _records(part)]
    return []
