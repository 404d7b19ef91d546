"""Emu3's vision tokenizer in its published layouts: the goldens, the same under BAAI's names, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from imported import check_fine_tuning, check_token_folder, tokenizer_of
from recipe import Golden, golden
from safetensors.torch import load_file
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.emu3 import Emu3
from imtok.interop.family import Conversion
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


def converted(tensors: dict[str, Tensor]) -> Conversion:
    checkpoint = Checkpoint(Path("emu3"), tensors)
    assert Emu3().recognises(checkpoint)
    return Emu3().convert(checkpoint)


def imported(tensors: dict[str, Tensor]) -> Tokenizer:
    return tokenizer_of(converted(tensors), tensors)


def baai(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as BAAI publishes them, the linear layers of attention as 1x1 convolutions."""
    renamed = {}
    for name, value in tensors.items():
        linear = re.search(r"\.(q_proj|k_proj|v_proj|out_proj)\.weight$", name)
        for pattern, replacement in _BAAI:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value[:, :, None, None] if linear else value
    return renamed


def test_latents_codes_and_images_are_those_of_the_published_code(peer: Golden) -> None:
    tokenizer = imported(peer.weights)
    latents = tokenizer.encoder(peer["in.images"])
    torch.testing.assert_close(latents, peer["out.latents"], atol=1e-4, rtol=1e-3)
    assert torch.equal(tokenizer.encode(peer["in.images"]), peer["out.codes"])
    assert len(peer["out.codes"].unique()) > 8
    images = tokenizer.decoder(tokenizer.quantizer.lookup(peer["out.codes"]))
    torch.testing.assert_close(images, peer["out.images"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("prefix", ["model.vqmodel.", "vqmodel."])
def test_the_whole_model_holds_the_same_tokenizer(peer: Golden, prefix: str) -> None:
    whole = {prefix + name: value for name, value in peer.weights.items()}
    whole["model.text_model.norm.weight"] = torch.ones(3)
    assert converted(whole).skipped == ("model.text_model.norm.weight",)
    assert imported(whole).fingerprint == imported(peer.weights).fingerprint


def test_both_published_layouts_give_one_tokenizer(peer: Golden) -> None:
    renamed = baai(peer.weights)
    assert "encoder.mid.attn_1.norm.weight" in renamed
    assert "decoder.up.1.attn.2.proj_out.weight" in renamed
    assert imported(renamed).files() == imported(peer.weights).files()


def test_sizes_are_those_of_the_tensors(peer: Golden) -> None:
    config = converted(peer.weights).config
    assert config.network == Emu3Config(
        channels=(32, 64), blocks=2, attention_stages=(1,), latent_channels=4, time_layers=2
    )
    assert (config.quantizer.dim, config.quantizer.num_codes) == (4, 256)


def test_every_published_tensor_has_a_place(peer: Golden) -> None:
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in peer.weights
        if name.endswith("running_var")
    }
    conversion = converted(peer.weights | counters)
    linear = [name for name in peer.weights if re.search(r"_proj\.weight$", name)]
    assert set(conversion.published.values()) == set(peer.weights) - set(linear)
    assert len(conversion.made) == len(linear) + 1  # and that the codebook has started
    assert set(conversion.skipped) == set(counters)


def test_a_missing_codebook_is_named(peer: Golden) -> None:
    tensors = {name: value for name, value in peer.weights.items() if not name.startswith("quantize.")}
    with pytest.raises(TokenizerError, match=r"emu3: quantize\.embedding\.weight is missing"):
        converted(tensors)


def test_several_heads_are_refused(peer: Golden) -> None:
    checkpoint = Checkpoint(Path("emu3"), peer.weights, settings={"num_attention_heads": 2})
    with pytest.raises(TokenizerError, match="num_attention_heads is 2; Emu3 is published with 1"):
        Emu3().convert(checkpoint)


def test_training_the_decoder_changes_no_token(peer: Golden, tmp_path: Path) -> None:
    check_fine_tuning(imported(peer.weights), tmp_path, 16)


def test_tokens_go_to_a_folder_and_back(peer: Golden, tmp_path: Path) -> None:
    check_token_folder(imported(peer.weights), tmp_path, 16)


def test_the_golden_of_the_published_code_is_met(shared: Path) -> None:
    folder = shared / "goldens/checkpoints/hf_emu3_vqvae"
    numbers, tensors = load_file(folder / "io.safetensors"), load_file(folder / "model.safetensors")
    tokenizer = imported(tensors)
    latents = tokenizer.encoder(numbers["in.images"])
    torch.testing.assert_close(latents, numbers["out.latents"], atol=1e-4, rtol=1e-3)
    codes = tokenizer.encode(numbers["in.images"])
    assert torch.equal(codes, numbers["out.indices"])
    looked_up = tokenizer.quantizer.lookup(codes)
    torch.testing.assert_close(looked_up, numbers["out.z_q"], atol=1e-6, rtol=0)
    torch.testing.assert_close(tokenizer.decoder(looked_up), numbers["out.recon"], atol=5e-4, rtol=2e-3)
