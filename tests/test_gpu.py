"""What must hold on a CUDA device. Run with `pytest -m gpu`; without a device these skip and say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from making import fill
from PIL import Image

import imtok
from imtok.config import load_train_config, parse_settings
from imtok.decoding import decode
from imtok.encoding import encode
from imtok.kernels import codebook_statistics, nearest_codes, rotate_to
from imtok.tokens import open_tokens
from imtok.training import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


@pytest.mark.parametrize(("dim", "num_codes"), [(8, 16384), (256, 1024)])
def test_the_search_finds_on_the_gpu_what_it_finds_on_the_cpu(dim: int, num_codes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2000, dim, generator=generator)
    codebook = torch.randn(num_codes, dim, generator=generator)
    there = nearest_codes(latents.cuda(), codebook.cuda()).cpu()
    here = nearest_codes(latents, codebook)
    assert (there != here).float().mean() < 0.002  # near ties alone


def test_statistics_and_rotation_agree_with_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, targets = torch.randn(500, 16, generator=generator), torch.randn(500, 16, generator=generator)
    codes = torch.randint(0, 32, (500,), generator=generator)
    for here, there in zip(
        codebook_statistics(latents, codes, 32), codebook_statistics(latents.cuda(), codes.cuda(), 32), strict=True
    ):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-5)
    one, other = latents.clone().requires_grad_(), latents.cuda().requires_grad_()
    rotate_to(one, targets).square().sum().backward()
    rotate_to(other, targets.cuda()).square().sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(other.grad.cpu(), one.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantizer", [["quantizer.levels=[8,5,5]"], ["quantizer.kind=vq", "quantizer.num_codes=64"]])
def test_train_encode_decode_on_the_gpu(quantizer: list[str], pictures: Path, tmp_path: Path) -> None:
    settings = [*quantizer, "size=64", "data.crop=32", "network.channels=[16,32]", "images=320", "device=cuda"]
    train([pictures], tmp_path / "run", load_train_config(parse_settings(settings)))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["val/psnr"] > 5
    report = encode([pictures], tmp_path / "tokens", tmp_path / "run", device="cuda")
    assert report.complete
    assert decode(tmp_path / "tokens", tmp_path / "back", device="cuda").images == 20
    key, codes = open_tokens(tmp_path / "tokens")[0]
    pixels = torch.from_numpy(np.array(Image.open(pictures / key))).permute(2, 0, 1)[None]
    assert (imtok.load(tmp_path / "run").encode(pixels)[0] != codes).float().mean() < 0.05
