"""The benchmark of protocols: it runs from end to end, and its tables say what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import call_script, import_script

from imtok.config import load_tokenizer_config
from imtok.tokenizer import Tokenizer


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its neighbours can be imported as when it is started from the command line."""
    return import_script("protocols", monkeypatch)


def test_each_protocol_and_each_part_of_it_is_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    torch.manual_seed(0)
    network = {"fold": 2, "channels": [8, 16], "blocks": 1}
    config = {"size": 16, "network": network, "quantizer": {"kind": "fsq", "levels": [5, 5]}}
    Tokenizer(load_tokenizer_config(config, "test")).save(tmp_path / "tokenizer")
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    call_script(script, monkeypatch, tmp_path, "-t", tmp_path / "tokenizer")
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert list(result["figures"]) == ["imtok", "adm", "taming", "titok", "var"]
    assert result["images"] == 5
    own, adm = result["figures"]["imtok"], result["figures"]["adm"]
    assert result["parts"]["var"]["metric"] == own
    assert result["parts"]["adm"]["metric"]["psnr"] == own["psnr"]
    assert result["parts"]["adm"]["metric"]["ssim"] != own["ssim"]
    values = [each["psnr"] for each in result["figures"].values()]
    assert f"| range | {max(values) - min(values):.2f} dB |" in printed
    assert f"| adm | {adm['psnr']:.2f} dB | {adm['ssim']:.4f} |" in printed
