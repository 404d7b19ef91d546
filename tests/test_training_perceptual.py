"""Training with a perceptual loss, on VGG16's network with weights made here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from making import fill
from runs import run_until, tiny
from safetensors.torch import save_file
from torch import Tensor
from vgg import vgg_weights

import imtok
from imtok.errors import ConfigError
from imtok.training import train


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG16's convolutions at their usual scale."""
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size) -> Tensor:
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        return torch.randn(shape, generator=generator) * scale

    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(vgg_weights(drawn), path)
    return path


def test_a_perceptual_run_resumes_and_chooses_its_best_by_lpips(weights: Path, tmp_path: Path) -> None:
    pictures = fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))
    named = ["loss.perceptual=0.5", f"loss.perceptual_weights={weights}"]
    config = tiny(*named, "images=24", "validate_every=8", "checkpoint_every=8", "batch_size=4")
    report = run_until([], pictures, tmp_path / "unbroken", config)
    run_until([12], pictures, tmp_path / "broken", config)
    lines = [json.loads(line) for line in (tmp_path / "unbroken" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss/perceptual"] > 0 for line in lines if "loss" in line)
    validations = [line for line in lines if "val/lpips" in line]
    assert len(validations) == 3
    assert report.best == min(validations, key=lambda line: float(line["val/lpips"]))
    for name in ("metrics.jsonl", "tokenizer/model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    names = imtok.load(tmp_path / "unbroken").state_dict()
    assert not any("perceptual" in name or "vgg" in name for name in names)


def test_without_weights_there_is_one_sentence_and_no_run(tmp_path: Path) -> None:
    pictures = fill(tmp_path / "pictures", ("1.png", "2.png"))
    config = tiny("loss.perceptual=1", f"loss.perceptual_weights={tmp_path / 'vgg16.pth'}")
    with pytest.raises(ConfigError, match=r"vgg16\.pth: no such file") as caught:
        train([pictures], tmp_path / "run", config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
