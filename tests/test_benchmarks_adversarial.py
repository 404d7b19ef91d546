"""The script that compares the adversarial family: it runs from end to end, and says what is unstable."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from making import fill_split
from scripts import call_script, import_script

SHORT = ["--steps", "8", "--batch-size", "2", "--images", "6", "--held-out", "3", "--device", "cpu"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("adversarial", monkeypatch)


@pytest.fixture
def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def called(*words: str | Path) -> None:
        call_script(script, monkeypatch, *words)

    return called


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill_split(tmp_path, train=6, val=3)


def test_rows_run_once_and_their_table_and_curves_come_back(
    call: Callable[..., None], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = pictures / "results.jsonl"
    call(pictures, "--results", results, *SHORT, "--rows", "none", "wasserstein-gp-3")
    *text, last = capsys.readouterr().out.splitlines()
    assert set(json.loads(last)["figures"]) == {"none", "wasserstein-gp-3"}
    before = results.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    assert [line["accuracy"] is None for line in lines] == [True, False]
    assert all(0 < line["psnr"] < 60 and line["detail"] > 0 for line in lines)
    call(pictures, "--results", results, *SHORT, "--rows", "none", "wasserstein-gp-3")
    assert results.read_text() == before
    capsys.readouterr()
    call("--table", results, "--curves", pictures / "curves")
    assert capsys.readouterr().out.splitlines() == text
    assert {path.name for path in (pictures / "curves").iterdir()} == {"none.png", "wasserstein-gp-3.png", "all.png"}


def test_every_row_of_the_family_is_a_configuration(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["adversarial.py", *SHORT])
    args = script.parse()
    found = {row: script.config_of(row, args).adversarial for row in script.ROWS}
    assert not found.pop("none").enabled
    assert len({each.model_dump_json() for each in found.values()}) == len(found)


def test_timing_gives_seconds_and_their_ratio_to_hinge(
    call: Callable[..., None], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(pictures, *SHORT, "--timing", "--rounds", "1", "--rows", "hinge", "gan-qp-own-l1")
    *_, hinge, _, last = capsys.readouterr().out.splitlines()
    assert hinge.endswith("| 1.00 |")
    assert set(json.loads(last)["seconds_a_step"]) == {"hinge", "gan-qp-own-l1"}


def test_a_run_that_falls_below_its_best_is_not_stable(
    script: ModuleType, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["adversarial.py", *SHORT])
    args = script.parse()
    images, held_out = script.load_images(pictures, "train", 6), script.load_images(pictures, "val", 3)
    assert script.run(script.config_of("none", args), images, held_out)["stable"]
    falling = iter(range(100, 0, -3))
    measure = script.measure
    monkeypatch.setattr(script, "measure", lambda *rest: {**measure(*rest), "psnr": float(next(falling))})
    assert not script.run(script.config_of("none", args), images, held_out)["stable"]
