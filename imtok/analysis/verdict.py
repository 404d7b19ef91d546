"""The verdict on a codebook: its worst finding in a word and a sentence, or that it is healthy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from imtok.analysis.statistics import Finding, Severity, Statistics

WORST_FIRST: tuple[Severity, ...] = ("problem", "warning", "hint")


@dataclass(frozen=True)
class Verdict:
    """The health of a codebook in a word and a sentence."""

    grade: str  # the severity of the worst finding, or healthy
    word: str
    text: str
    finding: Finding | None = None  # the worst one, unless healthy


def verdict(statistics: Statistics) -> Verdict:
    """Return the worst finding; a codebook with hints alone is healthy."""
    if not statistics.tokens:
        return Verdict("hint", "No tokens", "nothing was counted, so there is nothing to judge")
    worst = next(iter(by_severity(statistics.findings)), None)
    if worst is None or worst.grade == "hint":
        return Verdict("healthy", "Healthy", "no statistic passes the threshold of a warning")
    return Verdict(worst.grade, worst.grade.capitalize(), worst.text, worst)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings, the worst first."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.grade))
