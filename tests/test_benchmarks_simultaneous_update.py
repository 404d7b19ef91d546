"""The benchmark of the simultaneous update: each row goes its own way, and memory counts what graphs keep."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from scripts import call_script, import_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its neighbours can be imported as when it is started from the command line."""
    return import_script("simultaneous_update", monkeypatch)


def test_every_row_is_timed_and_its_memory_counted(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--kinds", "patchgan", "--size", "24", "--batch-size", "2", "--rounds", "1", "--threads", "1"]
    call_script(script, monkeypatch, *words, "--device", "cpu")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"device", "cores", "versions", "commit", "settings"} <= set(result)
    rows = result["discriminators"]["patchgan"]
    assert list(rows) == script.ROWS
    separate, two, one = rows.values()
    assert separate["over_separate"] == 1
    assert two["step_megabytes"] == separate["step_megabytes"]
    assert one["step_megabytes"] == pytest.approx(separate["step_megabytes"] / 2, rel=0.1)
    assert separate["between_megabytes"] == one["between_megabytes"] == 0
    assert two["between_megabytes"] == two["generator_megabytes"] > 0


def test_rows_whose_gradients_differ_are_no_result(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--size", "24", "--batch-size", "2", "--device", "cpu"])
    rows = [script.make_row(name, "patchgan", script.parse(), torch.device("cpu")) for name in script.ROWS]
    script.check(rows, "fp32")
    rows[1].images = -rows[1].images
    with pytest.raises(AssertionError, match="two backwards: gradients differ"):
        script.check(rows, "fp32")


def test_a_storage_kept_twice_counts_once(script: ModuleType) -> None:
    kept = script.Kept([])
    weight = torch.ones(1000, requires_grad=True)
    with kept.counting():
        product = weight.exp() * weight.detach()
    assert kept.now == kept.highest == 8000
    product.sum().backward()
    assert kept.now == 0
