"""`benchmarks/planning.py` plans, resumes and grows, and counts its seconds and bytes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from scripts import import_script

from imtok.data.storage import STORAGES


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    script = import_script("planning", monkeypatch)
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from Linux's /proc")
    monkeypatch.setattr(script, "_IN_A_FOLDER", 20)
    monkeypatch.setitem(STORAGES, "made", script.Made())
    return script


@pytest.mark.parametrize("source", ["classes", "shuffled", "signed", "unordered"])
def test_it_measures_every_step_of_a_source(source: str, script: ModuleType, tmp_path: Path) -> None:
    rows = [script.measured(step, source, 60, tmp_path / "t") for step in script._STEPS]
    assert [row["images"] for row in rows] == [60, 60, 66, 66]
    assert all(row["peak_bytes"] >= row["start_bytes"] > 0 for row in rows)
    lines = [len(path.read_bytes().splitlines()) for path in sorted((tmp_path / "t/plan").iterdir())]
    assert lines == [60, 7]
