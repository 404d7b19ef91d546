"""`benchmarks/scale.py` starts up every kind of source, and counts its seconds and bytes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import call_script, import_script

from imtok.data.storage import STORAGES

_PROC = Path("/proc/self/clear_refs")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    script = import_script("scale", monkeypatch)
    if not _PROC.exists():
        pytest.skip("resident memory is read from Linux's /proc")
    monkeypatch.setattr(script, "_IN_A_TAR", 40)
    monkeypatch.setattr(script, "_WARM_UP", 80)
    monkeypatch.setitem(STORAGES, "made", script.Made())
    return script


@pytest.mark.parametrize("kind", ["folder", "files", "tars", "stream"])
def test_it_measures_a_start_from_each_kind_of_source(kind: str, script: ModuleType, tmp_path: Path) -> None:
    found = script.measured(kind, 120, tmp_path)
    assert (found["source"], found["images"]) == (kind, 120)
    assert min(found["seconds"], found["cpu_seconds"]) > 0
    assert found["peak_bytes"] >= 0


def test_it_prints_a_table_and_a_line_for_each_row(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"seconds": 2.0, "cpu_seconds": 1.0, "kept_bytes": 60 * 10**5, "peak_bytes": 10**7}

    def made_up(kind: str, count: str, scratch: str) -> dict[str, Any]:
        return {"source": kind, "images": int(count), **figures}

    monkeypatch.setattr(script, "row", made_up)
    call_script(script, monkeypatch, "--rows", "tars:100000", "stream:100000")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["tars", "100,000", "2.00", "1.00", "6.0", "10.0", "60", "100"]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert json.loads(lines[3]).items() >= figures.items()


def test_its_class_folders_hold_as_many_images_as_it_says(script: ModuleType, tmp_path: Path) -> None:
    training, held_out, *_ = script.start_up(script.make_source("classes", 3000, tmp_path))
    assert len(training) + len(held_out) == 3000
    assert training.key(0).startswith("n00000000/n00000000_")
