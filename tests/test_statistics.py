"""Statistics have definitions, and each source that these name is in the list of references."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imtok.analysis import statistics
from imtok.analysis.statistics import definition
from imtok.records import Record
from imtok.report.glossary import REFERENCES

RECORDS = [
    kind
    for kind in vars(statistics).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda kind: kind.__name__)
def test_every_statistic_is_defined(record: type[Record]) -> None:
    assert record.__doc__
    assert [name for name in record.model_fields if not definition(record, name)] == []


def test_every_source_that_is_named_is_listed_and_no_other() -> None:
    texts = [
        text for record in RECORDS for text in (record.__doc__, *(definition(record, n) for n in record.model_fields))
    ]
    named = set(re.findall(r"[A-Z][A-Za-z]+(?: et al\.| & [A-Z][a-z]+)?, (?:19|20)\d\d", " ".join(filter(None, texts))))
    assert named == {reference[: re.search(r"\d{4}", reference).end()] for reference in REFERENCES}  # type: ignore[union-attr]
    assert list(REFERENCES) == sorted(REFERENCES)


def test_the_docs_list_the_sources_too() -> None:
    page = Path(__file__).parents[1] / "docs" / "stats.md"
    if not page.exists():
        pytest.skip("the checkout's docs are not here")
    assert [line[2:] for line in page.read_text().split("## References")[1].splitlines() if line] == list(REFERENCES)
