"""TiTok in its published layout: goldens of both forms, a sequence of codes through folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from imported import check_fine_tuning, check_token_folder
from published import imported, parameters
from recipe import Golden, golden
from safetensors.torch import save_file
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop import import_checkpoint
from imtok.networks.titok_config import TiTokConfig
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import Tokenizer
from imtok.tokens import open_tokens

FORMS = ["titok_legacy", "titok"]


@pytest.fixture(scope="module", params=FORMS)
def peer(request: pytest.FixtureRequest) -> Golden:
    """Numbers of 1d-tokenizer's own code, with smaller constants."""
    return golden(request.param)


def write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def tokenizer(peer: Golden, tmp_path: Path) -> Tokenizer:
    return imported(write(tmp_path / "titok", peer.weights, peer.config), tmp_path / "imported")


def test_latents_codes_and_images_are_those_of_the_published_code(tokenizer: Tokenizer, peer: Golden) -> None:
    images = peer["in.images"] * 2 - 1
    torch.testing.assert_close(tokenizer.encoder(images), peer["out.latents"], atol=1e-4, rtol=1e-3)
    assert torch.equal(tokenizer.encode(images), peer["out.codes"])
    assert len(peer["out.codes"].unique()) >= 6
    decoded = tokenizer.decoder(tokenizer.quantizer.lookup(peer["out.codes"]))
    torch.testing.assert_close((decoded + 1) / 2, peer["out.images"], atol=1e-3, rtol=1e-3)


def test_a_tokenizer_of_a_sequence_says_so(tokenizer: Tokenizer) -> None:
    assert tokenizer.downsample is None
    assert "a sequence of 5 at its size of 16" in repr(tokenizer)
    assert tokenizer.encode(torch.zeros(0, 3, 16, 16)).shape == (0, 1, 5)
    with pytest.raises(TokenizerError, match="images are 16x32, expected 16x16 alone"):
        tokenizer.encode(torch.zeros(1, 3, 16, 32))


def test_the_configuration_says_how_codes_are_compared(peer: Golden, tmp_path: Path) -> None:
    unit = peer.config["model"]["vq_model"]["use_l2_norm"]
    prints = {}
    for value in (True, False):
        peer.config["model"]["vq_model"]["use_l2_norm"] = value
        found = imported(write(tmp_path / "titok", peer.weights, peer.config), tmp_path / str(value))
        assert found.config.quantizer.metric == ("cosine" if value else "euclidean")  # type: ignore[union-attr]
        prints[value] = found.fingerprint
    assert prints[True] != prints[False]
    peer.config["model"]["vq_model"]["use_l2_norm"] = unit
    (tmp_path / "titok/config.json").unlink()
    report = import_checkpoint(tmp_path / "titok", tmp_path / "guessed")
    assert report.tokenizer.fingerprint == prints[unit]
    assert "compared at unit length" in report.assumed[0]


def test_training_the_decoder_changes_no_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer, tmp_path, 16)


def test_tokens_go_to_a_folder_and_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_token_folder(tokenizer, tmp_path, 16)
    dataset = open_tokens(tmp_path / "tokens")
    assert dataset.grid == (1, 5)
    assert dataset.info.downsample is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantize.embedding.weight": None}, "continuous latents"),
        ({"pixel_quantize.embedding.weight": None}, "first stage of training and draws no images"),
        ({"decoder.text_guidance_proj.weight": torch.zeros(1)}, "is a TA-TiTok"),
        ({"decoder.ln_pre.weight": None}, r"lacks decoder\.ln_pre\.weight"),
        ({"encoder.conv_out.bias": None}, r"lacks encoder\.conv_out\.bias"),
    ],
)
def test_relatives_and_incomplete_files_are_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    peer = golden("titok_legacy")
    tensors = {name: value for name, value in (peer.weights | change).items() if value is not None}
    with pytest.raises(TokenizerError, match=message):
        import_checkpoint(write(tmp_path / "titok", tensors, peer.config), tmp_path / "imported")


SMALL, BASE, LARGE = (512, 8, 8), (768, 12, 12), (1024, 24, 16)  # width, layers, heads


@pytest.mark.parametrize(
    ("encoder", "decoder", "tokens", "codebook", "expected"),
    [
        (LARGE, LARGE, 32, (4096, 12), 641_054_735),
        (BASE, BASE, 64, (4096, 12), 204_814_095),
        (SMALL, SMALL, 128, (4096, 12), 83_674_639),
        (BASE, LARGE, 128, (8192, 64), 390_179_988),
        (SMALL, LARGE, 256, (8192, 64), 330_260_884),
    ],
    ids=["L-32", "B-64", "S-128", "BL-128", "SL-256"],
)
def test_published_sizes_have_as_many_parameters(
    encoder: tuple[int, ...], decoder: tuple[int, ...], tokens: int, codebook: tuple[int, int], expected: int
) -> None:
    """As 1d-tokenizer's own modules count; the paper has 641, 204 and 83 million for the first three."""
    names = ("width", "layers", "heads")
    sizes = dict(zip(names, encoder, strict=True)) | dict(zip((f"decoder_{n}" for n in names), decoder, strict=True))
    network = TiTokConfig(tokens=tokens, legacy=codebook[1] == 12, **sizes)  # type: ignore[arg-type]
    config = TokenizerConfig(network=network, quantizer=VQConfig(dim=codebook[1], num_codes=codebook[0]), size=256)
    assert sum(parameters(config)[:2]) + codebook[0] * codebook[1] == expected
