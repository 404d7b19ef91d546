"""The benchmark of training: it runs from end to end, and its ratios are the quotients of the speeds it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from making import fill
from scripts import call_script, import_script

TINY = [
    "--crop", "16", "--batch-size", "4", "--rounds", "1", "--steps", "1", "--threads", "1", "--device", "cpu",
    "--set", "network.channels=[8]", "--set", "network.blocks=1", "--set", "quantizer.num_codes=16", "--set", "size=32",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peer's own


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its neighbours can be imported as when it is started from the command line."""
    pytest.importorskip("vector_quantize_pytorch", reason="the peer that training is measured against is not installed")
    # Its cache of compiled kernels is a folder that is gone afterwards.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    return import_script("train_throughput", monkeypatch)


@pytest.fixture
def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def called(*words: str | Path) -> None:
        call_script(script, monkeypatch, *words)

    return called


def script_args() -> argparse.Namespace:
    return argparse.Namespace(batch_size=16, crop=96, device="cpu", threads=1, set=["precision=fp32"])


def test_speeds_are_measured_and_compared(
    script: ModuleType, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["peer", "imtok", "imtok-bf16", "bare"]
    call(*TINY, "--rows", *rows)
    *_, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert {"device", "cores", "versions", "commit", "settings"} <= set(result)
    assert result["settings"]["crop"] == 16
    assert list(result["cases"]) == script.CASES
    for case in result["cases"].values():
        speeds = case["images_per_second"]
        assert list(speeds) == list(case["spread"]) == list(case["first_steps"]) == rows
        for base in ("peer", "bare"):
            expected = {name: speed / speeds[base] for name, speed in speeds.items() if name != base}
            assert case[f"over_{base}"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        for name in ("peer", "imtok", "imtok-bf16"):
            losses = case["first_steps"][name]["loss"]
            assert losses[-1] < losses[0]
            assert 2 <= case["first_steps"][name]["codes"] <= 16


def test_a_whole_training_run_is_measured_on_real_images(
    call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, [f"{number}.png" for number in range(12)])
    call(*TINY, "--case", "rotation-vq-f8", "--rows", "imtok", "--source", tmp_path, "--images", "16")
    *_, summary, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["settings"]["source"] == tmp_path.name
    case = result["cases"]["rotation-vq-f8"]
    assert case["over_peer"] == case["over_bare"] == {}
    training = case["training"]
    assert training["images_per_second"] > 0
    assert training["median_of_log"] > 0
    assert 0 <= training["data_wait"] <= 1
    assert summary.startswith("`imtok train`")


def test_the_peer_differs_from_imtok_where_it_has_no_option(script: ModuleType) -> None:
    cosine = script.configuration("cosine-vq-f8", script_args()).tokenizer.quantizer
    peer = script.peer_quantizer(cosine)
    assert cosine.codebook_update == "gradient"
    assert (peer.use_cosine_sim, peer.learnable_codebook, peer.ema_update) == (True, False, True)
    assert peer.codebook.shape == (16384, 8)
    rotation = script.peer_quantizer(script.configuration("rotation-vq-f8", script_args()).tokenizer.quantizer)
    assert (rotation.rotation_trick, rotation._codebook.decay, rotation.codebook_size) == (True, 0.99, 1024)


@pytest.mark.parametrize("case", ["fsq-f8", "simvq-f8", "ibq-f8", "vqgan-f16-1024"])
def test_a_preset_that_the_peer_cannot_follow_is_refused(script: ModuleType, case: str) -> None:
    with pytest.raises(SystemExit, match=f"^{case}: "):
        script.configuration(case, script_args())


def test_a_row_that_does_not_learn_is_no_result(script: ModuleType) -> None:
    config = script.configuration("rotation-vq-f8", script_args())
    script.check("peer", {"loss": [2.0, 1.0], "codes": 103}, config)
    with pytest.raises(AssertionError, match="peer does not learn"):
        script.check("peer", {"loss": [1.0, 1.0], "codes": 1024}, config)
    with pytest.raises(AssertionError, match="of 1024 codes 102 are in use"):
        script.check("peer", {"loss": [2.0, 1.0], "codes": 102}, config)


def test_pictures_are_the_same_at_every_call(script: ModuleType) -> None:
    first, again = (script.pictures(2, 3, 16, torch.device("cpu")) for _ in range(2))
    assert [batch.shape for batch in first] == [(3, 3, 16, 16)] * 2
    assert first[0].dtype == torch.uint8
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
