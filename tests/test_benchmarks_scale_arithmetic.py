"""The arithmetic of reductions on many GPUs: its counts and its formula, by hand."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
import torch
from scripts import call_script, import_script
from torch import nn

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.tokenizer import Tokenizer

SMALL = ["network.channels=[8]", "network.blocks=1"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("scale_arithmetic", monkeypatch)


def small(name: str, *settings: str) -> TrainConfig:
    return load_train_config(merge(preset(name), parse_settings([*SMALL, *settings])), name)


def test_a_ring_sends_nearly_twice_what_it_reduces(script: ModuleType) -> None:
    assert script.seconds(450e9, 1, 450e9) == 0
    assert script.seconds(450e9, 8, 450e9) == pytest.approx(1.75)
    assert script.seconds(12.5e9, 64, 12.5e9) == pytest.approx(2 * 63 / 64)


def test_all_that_learns_is_reduced(script: ModuleType) -> None:
    config = small("vq-f8", "quantizer.num_codes=32", "quantizer.dim=4")
    step = script.step_of(config)
    learning = sum(each.numel() for each in Tokenizer(config.tokenizer).parameters())
    assert step.tokenizer == 4 * learning
    assert step.codebook == 4 * 32 * (4 + 1)
    assert step.discriminator == 0
    assert script.step_of(small("cpu-gan-f4")).discriminator > 0


def test_operations_are_counted_as_by_hand(script: ModuleType) -> None:
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    assert script.flops(convolution, torch.empty(1, 3, 8, 8)) == 2 * 64 * 5 * 3 * 9


def test_overlap_hides_what_the_backward_pass_covers(script: ModuleType) -> None:
    step = script.Step(tokenizer=10**9, discriminator=0, codebook=0, tokenizer_flops=3e12, other_flops=0.0)
    computing, reducing, late, overlapped = step.efficiency(10, 8, 1e12)
    assert computing == pytest.approx(30e12 / (script.PEAK * script.UTILISATION))
    assert late == pytest.approx(computing / (computing + reducing))
    assert overlapped == 1
    *_, late, overlapped = step.efficiency(10, 8, 1e9)  # too slow to be hidden
    assert late < overlapped < 1


def test_the_table_says_that_nothing_was_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_script(script, monkeypatch, "--presets", "cpu-fsq-f8", "--batch-size", "2")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Arithmetic, not measured")
    record = json.loads(last)
    assert record["measured"] is False
    assert [row["link"] for row in record["rows"]] == list(script.LINKS)
