"""The benchmark of two processes: it starts them, they train as one does, and its bytes are those of the arithmetic."""

from __future__ import annotations

import argparse
from types import ModuleType

import pytest
import torch
from scripts import import_script

from imtok.training.state import TrainState

TINY = ["network.channels=[8]", "network.blocks=1", "batch_size=4", "adversarial.discriminator.channels=8"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("scale_ranks", monkeypatch)


def test_two_processes_reduce_what_the_arithmetic_counts(script: ModuleType) -> None:
    args = argparse.Namespace(set=TINY, device="cpu", steps=2)
    found = script.started("cpu-gan-f4", "two, 1 thread each", args)
    config = script.configuration("cpu-gan-f4", args)
    torch.manual_seed(0)
    alone = script.measured(TrainState(config, torch.device("cpu")), args.steps)
    assert found["loss"] == pytest.approx(alone["loss"], rel=script.SAME_LOSS)
    assert 0 <= found["bytes"] - script.step_of(config).reduced < 1024  # metrics and verdicts
    assert 0 < found["reducing"] < 1
    assert found["transfer"] > 0
    assert "bytes" not in alone


def test_rows_of_other_losses_are_not_reported(script: ModuleType) -> None:
    script.check("a case", {"one": {"loss": 1.0}, "two": {"loss": 1.005}})
    with pytest.raises(AssertionError, match="other losses"):
        script.check("a case", {"one": {"loss": 1.0}, "two": {"loss": 1.05}})
