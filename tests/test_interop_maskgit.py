"""MaskGIT's VQGAN in its published layout: the golden, and the same on a checkpoint made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from imported import check_fine_tuning, check_token_folder
from published import check_golden, drawn, imported, maskgit_shapes, parameters
from torch import Tensor

from imtok.interop import Checkpoint
from imtok.interop.families.maskgit import MaskGIT
from imtok.tokenizer import Tokenizer


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return drawn(maskgit_shapes())


@pytest.fixture
def tokenizer(weights: dict[str, Tensor], tmp_path: Path) -> Tokenizer:
    torch.save(weights, tmp_path / "maskgit.bin")
    return imported(tmp_path / "maskgit.bin", tmp_path / "imported")


def own_block(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """The published residual block: where the width changes, its input is dropped."""
    hidden = x
    for number in (1, 2):
        norm, convolution = f"{name}.norm{number}", f"{name}.conv{number}.weight"
        hidden = F.group_norm(hidden, 32, weights[f"{norm}.weight"], weights[f"{norm}.bias"], 1e-6)
        hidden = F.conv2d(F.silu(hidden), weights[convolution], padding=1)
    shortcut = weights.get(f"{name}.nin_shortcut.weight")
    return hidden + (x if shortcut is None else F.conv2d(hidden, shortcut))


def test_the_golden_of_the_published_code_is_met(shared: Path, tmp_path: Path) -> None:
    folder = shared / "goldens/checkpoints/maskgit_vqgan"
    tokenizer = imported(folder / "maskgit-vqgan-imagenet-f16-256.bin", tmp_path / "imported")
    check_golden(tokenizer, folder, unit_range=True)
    assert (tokenizer.downsample, tokenizer.num_codes, tokenizer.config.size) == (16, 64, 64)


def test_latents_are_those_of_the_published_arithmetic(tokenizer: Tokenizer, weights: dict[str, Tensor]) -> None:
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    hidden = F.conv2d(images, weights["encoder.conv_in.weight"], padding=1)
    hidden = F.avg_pool2d(own_block(hidden, weights, "encoder.down.0.block.0"), 2)
    hidden = own_block(own_block(hidden, weights, "encoder.down.1.block.0"), weights, "encoder.mid.0")
    norm = weights["encoder.norm_out.weight"], weights["encoder.norm_out.bias"]
    hidden = F.silu(F.group_norm(hidden, 32, *norm, 1e-6))
    latents = F.conv2d(hidden, weights["encoder.conv_out.weight"], weights["encoder.conv_out.bias"])
    torch.testing.assert_close(tokenizer.encoder(images * 2 - 1), latents, atol=1e-4, rtol=1e-4)
    table = weights["quantize.embedding.weight"]
    nearest = torch.cdist(latents.permute(0, 2, 3, 1), table).argmin(dim=-1)
    assert torch.equal(tokenizer.encode(images * 2 - 1), nearest)
    assert torch.equal(tokenizer.quantizer.lookup(nearest), table[nearest].permute(0, 3, 1, 2))


def test_pictures_become_tokens_and_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_token_folder(tokenizer, tmp_path, size=16)


def test_fine_tuning_the_decoder_keeps_every_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer, tmp_path, size=16)


def test_the_published_network_has_its_number_of_parameters() -> None:
    """23,775,104, 30,478,339 and 262,144: counted of 1d-tokenizer's own modules."""
    published = maskgit_shapes(width=128, multipliers=(1, 1, 2, 2, 4), blocks=2, dim=256, codes=1024)
    conversion = MaskGIT().convert(Checkpoint(Path("x.bin"), published))
    assert parameters(conversion.config) == [23_775_104, 30_478_339, 262_144 + 1]  # and the flag of the start
    assert conversion.config.size == 256
    assert conversion.assumed == ("images of 256 x 256, as published",)
