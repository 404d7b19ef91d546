"""The script that compares the use of codebooks: it runs from end to end, and measures each contender once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from making import fill_split
from scripts import import_script

from imtok.quantizers import VectorQuantizer

SHORT = ["--steps", "2", "--seeds", "0", "1", "--codes", "8", "--batch-size", "2", "--channels", "8"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("vector_quantize_pytorch", reason="the extra `bench` is not installed")
    return import_script("codebook_health", monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill_split(tmp_path, train=6, val=3)


def test_each_contender_runs_once_from_the_same_networks(
    script: ModuleType, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = pictures / "results.jsonl"
    words = ["codebook_health.py", pictures, "--results", results, "--only", "imtok", "peer", *SHORT]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    begun: list[torch.Tensor] = []
    train = script.train

    def noting(model: torch.nn.Module, *rest: object) -> None:
        begun.append(next(model.encoder.parameters()).detach().clone())  # type: ignore[union-attr]
        train(model, *rest)

    monkeypatch.setattr(script, "train", noting)
    script.main()
    *_, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["rows"]
    assert [(row["contender"], row["seeds"]) for row in rows] == [("imtok", 2), ("peer", 2)]
    assert all(0 < row["used"] <= 8 and row["psnr"] > 0 for row in rows)
    assert torch.equal(begun[0], begun[1])  # seed 0, imtok and its peer
    assert not torch.equal(begun[0], begun[2])
    before = results.read_text()
    script.main()
    assert results.read_text() == before


def test_restarted_codes_are_those_newly_placed(script: ModuleType) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 4, codebook_update="gradient", revival_threshold=0.5)
    restarts = script.Restarts(quantizer)
    quantizer.codebook.data.copy_(torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0], [90.0, 90.0]]))
    quantizer.age.copy_(torch.tensor([0, 999, 999, 0]))
    quantizer.latents_seen.fill_(10**6)  # so that 200 latents make a code old
    quantizer(torch.zeros(1, 2, 4, 4))
    assert restarts.shares == [0.5]
