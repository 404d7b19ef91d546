"""Emu3's vision tokenizer in its published layouts: the goldens, the same under BAAI's names, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from imported import check_fine_tuning, check_token_folder
from published import check_golden, imported
from recipe import Golden, golden
from safetensors.torch import save_file
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop import import_checkpoint
from imtok.networks.emu3_config import Emu3Config
from imtok.tokenizer import Tokenizer

# transformers' names -> those of BAAI/Emu3-VisionTokenizer.
_BAAI = [
    (r"\.(down|up)_block\.", "."),
    (r"\.middle_block\.attn_norm\.", ".mid.attn_1.norm."),
    (r"\.middle_block\.", ".mid."),
    (r"\.attn_norms\.(\d+)\.", r".attn.\1.norm."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.out_proj\.", ".proj_out."),
]


@pytest.fixture(scope="module")
def peer() -> Golden:
    """Numbers of transformers' own code."""
    return golden("emu3")


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


@pytest.fixture
def tokenizer(peer: Golden, tmp_path: Path) -> Tokenizer:
    return imported(write(tmp_path / "emu3.safetensors", peer.weights), tmp_path / "imported")


def baai(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as BAAI publishes them, the linear layers of attention as 1x1 convolutions."""
    renamed = {}
    for name, value in tensors.items():
        linear = re.search(r"\.(q_proj|k_proj|v_proj|out_proj)\.weight$", name)
        for pattern, replacement in _BAAI:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value[:, :, None, None] if linear else value
    return renamed


def test_latents_codes_and_images_are_those_of_the_published_code(tokenizer: Tokenizer, peer: Golden) -> None:
    latents = tokenizer.encoder(peer["in.images"])
    torch.testing.assert_close(latents, peer["out.latents"], atol=1e-4, rtol=1e-3)
    assert torch.equal(tokenizer.encode(peer["in.images"]), peer["out.codes"])
    assert len(peer["out.codes"].unique()) > 8
    images = tokenizer.decoder(tokenizer.quantizer.lookup(peer["out.codes"]))
    torch.testing.assert_close(images, peer["out.images"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("prefix", ["model.vqmodel.", "vqmodel."])
def test_the_whole_model_holds_the_same_tokenizer(
    prefix: str, tokenizer: Tokenizer, peer: Golden, tmp_path: Path
) -> None:
    whole = {prefix + name: value for name, value in peer.weights.items()}
    whole["model.text_model.norm.weight"] = torch.ones(3)
    path = write(tmp_path / "whole.safetensors", whole)
    assert imported(path, tmp_path / "other").fingerprint == tokenizer.fingerprint


def test_both_published_layouts_give_one_tokenizer(tokenizer: Tokenizer, peer: Golden, tmp_path: Path) -> None:
    renamed = baai(peer.weights)
    assert "encoder.mid.attn_1.norm.weight" in renamed
    assert "decoder.up.1.attn.2.proj_out.weight" in renamed
    found = imported(write(tmp_path / "baai.safetensors", renamed), tmp_path / "other")
    assert found.fingerprint == tokenizer.fingerprint
    torch.testing.assert_close(found.state_dict(), tokenizer.state_dict(), atol=0, rtol=0)


def test_sizes_are_those_of_the_tensors(tokenizer: Tokenizer) -> None:
    assert tokenizer.config.network == Emu3Config(
        channels=(32, 64), blocks=2, attention_stages=(1,), latent_channels=4, time_layers=2
    )
    assert (tokenizer.config.quantizer.dim, tokenizer.config.quantizer.num_codes) == (4, 256)


def test_counters_of_batches_alone_are_left_out(peer: Golden, tmp_path: Path) -> None:
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in peer.weights
        if name.endswith("running_var")
    }
    path = write(tmp_path / "emu3.safetensors", peer.weights | counters)
    report = import_checkpoint(path, tmp_path / "imported")
    assert sum(report.left_out.values()) == len(counters) == 8
    assert "images in [-1, 1]" in report.assumed[0]


@pytest.mark.parametrize("missing", ["quantize.embedding.weight", "encoder.conv_in.weight", "decoder.conv_in.bias"])
def test_a_missing_tensor_is_named(missing: str, peer: Golden, tmp_path: Path) -> None:
    tensors = {name: value for name, value in peer.weights.items() if name != missing}
    path = write(tmp_path / "emu3.safetensors", tensors)
    named = {"quantize.embedding.weight": missing}.get(missing, missing.replace("conv_in", "spatial.trunk.conv_in"))
    with pytest.raises(TokenizerError, match=re.escape(named)):
        import_checkpoint(path, tmp_path / "imported")


def test_several_heads_are_refused(peer: Golden, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", peer.weights)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}')
    with pytest.raises(TokenizerError, match="num_attention_heads is 2; Emu3 is published with 1"):
        import_checkpoint(path, tmp_path / "imported")


def test_training_the_decoder_changes_no_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer, tmp_path, 16)


def test_tokens_go_to_a_folder_and_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_token_folder(tokenizer, tmp_path, 16)


def test_the_golden_of_the_published_code_is_met(shared: Path, tmp_path: Path) -> None:
    folder = shared / "goldens/checkpoints/hf_emu3_vqvae"
    check_golden(imported(folder / "model.safetensors", tmp_path / "imported"), folder)
