"""The verdict on a codebook follows from its worst finding."""

from __future__ import annotations

from typing import Any

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


def test_too_few_tokens_leave_the_verdict_open() -> None:
    few = Finding(name="too-few-tokens", grade="hint", text="0.4 tokens per code", page="docs/x.md")
    found = verdict(example(findings=[finding("hint"), few]))
    assert (found.grade, found.word, found.text) == ("hint", "Undecided", "0.4 tokens per code")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dead": 40}, ""),
        ({"dead": 300}, "; 300 of 1,024 codes never occur, as the corners of a fixed grid are rarely reached"),
        ({"dead": 90, "dimensions": []}, "; 90 of 1,024 codes never occur, fewer than are reported as waste"),
        ({"dead": 300, "tokens": 2048}, "; 300 of 1,024 codes never occur, some of them as there are only 2 tokens"),
    ],
)
def test_a_healthy_verdict_says_why_many_codes_may_stay_unused(changes: dict[str, Any], reason: str) -> None:
    found = verdict(example(findings=[], **changes))
    assert found.grade == "healthy"
    assert found.text.startswith(f"no statistic passes the threshold of a warning{reason}")
    assert bool(reason) == ("never occur" in found.text)
