"""The verdict on a codebook follows from its worst finding."""

from __future__ import annotations

import pytest
from statistics_example import example

from imtok.analysis.diagnostics import by_severity, verdict
from imtok.analysis.statistics import Finding, Severity


def finding(grade: Severity) -> Finding:
    return Finding(name=grade, grade=grade, text=f"about {grade}", page="docs/x.md")


def test_the_worst_finding_is_the_verdict() -> None:
    findings = [finding("hint"), finding("problem"), finding("warning")]
    found = verdict(example(findings=findings))
    assert (found.grade, found.word, found.text, found.finding) == ("problem", "Problem", "about problem", findings[1])
    assert [each.grade for each in by_severity(findings)] == ["problem", "warning", "hint"]


@pytest.mark.parametrize("findings", [[], [finding("hint")]])
def test_a_codebook_without_findings_or_with_hints_alone_is_healthy(findings: list[Finding]) -> None:
    assert verdict(example(findings=findings)).grade == "healthy"


def test_no_tokens_are_no_healthy_codebook() -> None:
    assert verdict(example(tokens=0, findings=[])).word == "No tokens"
