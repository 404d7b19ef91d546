"""Tokenizers as diffusers' VQModel: equal codes, the way back by import, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import imtok
from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop import import_checkpoint
from imtok.interop.exporting.job import export_tokenizer
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import FSQConfig, QuantizerConfig, VQConfig
from imtok.tokenizer import Tokenizer

NETWORK = VQGANConfig(
    channels=(8, 16), blocks=1, attention_stages=(1,), latent_channels=4, norm_groups=4, middle_attention=True
)
CODEBOOK = VQConfig(dim=4, num_codes=32, codebook_update="gradient", kmeans_start=False, revival_threshold=0)


def saved(folder: Path, network: VQGANConfig = NETWORK, quantizer: QuantizerConfig = CODEBOOK) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(network=network, quantizer=quantizer, size=32)).eval()
    tokenizer.save(folder)
    return tokenizer


@pytest.mark.parametrize("bare", [False, True])
def test_a_vqmodel_has_equal_codes_and_comes_back(bare: bool, tmp_path: Path) -> None:
    bare_network = NETWORK.model_copy(update={"attention_stages": (), "middle_attention": False})
    tokenizer = saved(tmp_path / "ours", bare_network if bare else NETWORK)
    report = export_tokenizer(tmp_path / "ours", tmp_path / "theirs", "diffusers")
    assert report.check.different_codes == 0
    assert report.check.image_difference < 1e-4
    assert set(report.sizes) == {"config.json", "diffusion_pytorch_model.safetensors"}
    import_checkpoint(tmp_path / "theirs", tmp_path / "back")
    assert imtok.load(tmp_path / "back").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("options", [{"metric": "cosine"}, {"codebook_update": "projection", "kmeans_start": False}])
def test_a_codebook_of_other_kind_gives_equal_codes(options: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path / "ours", quantizer=VQConfig(**{"dim": 4, "num_codes": 32, **options}))
    report = export_tokenizer(tmp_path / "ours", tmp_path / "theirs", "diffusers")
    assert report.check.different_codes == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_blocks": 3}, "network.decoder_blocks is 3, and a VQModel of this network has 2"),
        ({"bias": False}, "network.bias is false, and a VQModel of this network has true"),
        ({"latent_channels": None}, "network.latent_channels is None, and a VQModel of this network has a number"),
        ({"decoder_attention_stages": (0, 1)}, r"decoder_attention_stages is \[0, 1\], and .* has \[1\]"),
        ({"image_range": "0..1"}, r"network.image_range is 0\.\.1"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path / "ours", NETWORK.model_copy(update=options))
    with pytest.raises(TokenizerError, match=message):
        export_tokenizer(tmp_path / "ours", tmp_path / "theirs", "diffusers")
    assert not (tmp_path / "theirs").exists()


def test_a_quantizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "ours", quantizer=FSQConfig(levels=(5, 5)))
    with pytest.raises(TokenizerError, match=r"quantizer.kind is fsq.*export it to torch-export or onnx"):
        export_tokenizer(tmp_path / "ours", tmp_path / "theirs", "diffusers")


def test_the_shipped_network_is_no_vqmodel(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"network.kind is conv, and a VQModel is VQGAN's network"):
        export_tokenizer("imtok-f8", tmp_path / "theirs", "diffusers")
