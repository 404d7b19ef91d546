"""`benchmarks/kills.py` runs from end to end: a killed run ends with the bytes of one that was not killed."""

from __future__ import annotations

import json

import pytest
from scripts import call_script, import_script


def test_a_killed_run_ends_as_one_without_a_kill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = import_script("kills", monkeypatch)
    call_script(
        script, monkeypatch, "--kills", "1", "--images", "400", "--every", "40", "--span", "0.3", "--from", "http"
    )
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(record["kills"]) == 1
    assert record["equal"] == dict.fromkeys(script._FILES, True)
    assert record["slowest_end"] < 60
