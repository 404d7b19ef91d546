"""The tables of a report: top codes, codebooks, codes that change most, classes, duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from imtok.analysis.formatting import several, together
from imtok.analysis.statistics import Statistics


class Table(NamedTuple):
    """Rows as records, which the template writes by `kind`."""

    kind: str
    title: str
    rows: Sequence[Any]
    width: str = "wide"


def tables(statistics: Statistics) -> list[Table]:
    """List all tables that have rows: small ones two in a row, so that none stands alone."""
    first = ", first codebook" if several(statistics) else ""
    small = [
        Table("top", f"Codes used most{together(statistics)}", statistics.top if statistics.tokens else []),
        Table("codebooks", "Codebooks", statistics.codebooks if statistics.num_codebooks > 1 else []),
        Table("changing", f"Codes that change most{first}", _changing(statistics)),
    ]
    large = [
        Table("classes", f"Classes{together(statistics)}", statistics.classes),
        Table("duplicates", "Images with the same codes", statistics.duplicates.largest),
    ]
    small, large = ([each for each in found if each.rows] for found in (small, large))
    paired = len(small) // 2 * 2
    return [each._replace(width="half") for each in small[:paired]] + small[paired:] + large


def _changing(statistics: Statistics) -> list[tuple[str, Any]]:
    """What was done and which codes that changed, five of each."""
    if statistics.tokenizer is None:
        return []
    sources = [("encoded again", statistics.tokenizer.idempotence.least_stable)]
    sources += [(each.name, each.most_changed) for each in statistics.tokenizer.sensitivity.disturbances]
    return [(name, each) for name, codes in sources for each in codes[:5]]
