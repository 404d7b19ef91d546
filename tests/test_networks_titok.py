"""TiTok's encoder and decoder, and the contract of codes that are a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from making import fill
from torch import Tensor

from imtok.analysis import analyze
from imtok.config import TokenizerConfig, TrainConfig
from imtok.encoding import encode
from imtok.errors import ConfigError, TokensError
from imtok.evaluation import evaluate
from imtok.networks.conv_config import ConvConfig
from imtok.networks.titok import TiTokDecoder, TiTokEncoder, TransformerLayer
from imtok.networks.titok_config import TiTokConfig
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import Tokenizer
from imtok.tokens import write_tokens

SIZES: dict[str, Any] = {"image_size": 16, "patch_size": 4, "tokens": 5, "width": 8, "layers": 1, "heads": 2}
SIZES |= {"decoder_patch_size": 4, "decoder_width": 12, "decoder_layers": 1, "decoder_heads": 3}
LEGACY: dict[str, Any] = SIZES | {
    "pixel_codes": 6,
    "pixel_latents": 7,
    "pixel_channels": (32, 32, 32),
    "pixel_blocks": 1,
}
FORMS = [{**SIZES, "legacy": False}, LEGACY]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(**options: Any) -> tuple[TiTokEncoder, TiTokDecoder]:
    torch.manual_seed(0)
    encoder, decoder = TiTokConfig(**options).build(4, 6)
    assert isinstance(encoder, TiTokEncoder)
    assert isinstance(decoder, TiTokDecoder)
    return encoder, decoder


def tiny(**options: Any) -> Tokenizer:
    torch.manual_seed(0)
    network = TiTokConfig(**SIZES, legacy=False, **options)
    return Tokenizer(TokenizerConfig(network=network, quantizer=VQConfig(dim=4, num_codes=16), size=16)).eval()


@pytest.mark.parametrize("options", FORMS)
def test_images_become_a_sequence_and_back(options: dict[str, Any]) -> None:
    encoder, decoder = pair(**options)
    assert encoder(noise(2, 3, 16, 16)).shape == (2, 4, 1, 5)
    assert decoder(noise(2, 6, 1, 5)).shape == (2, 3, 16, 16)


def test_a_layer_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours = TransformerLayer(8, 2)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {"norm1": "norm1", "norm2": "norm2", "self_attn.out_proj": "out", "linear1": "mlp.0", "linear2": "mlp.2"}
    state = {
        f"{theirs_}.{kind}": ours.get_parameter(f"{mine}.{kind}")
        for theirs_, mine in names.items()
        for kind in ("weight", "bias")
    }
    state |= {f"self_attn.in_proj_{kind}": ours.get_parameter(f"qkv.{kind}") for kind in ("weight", "bias")}
    theirs.load_state_dict(state)
    x = noise(2, 5, 8)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", FORMS)
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    encoder, decoder = pair(**options)
    (encoder(noise(2, 3, 16, 16)) * noise(2, 4, 1, 5, seed=1)).sum().backward()
    (decoder(noise(2, 6, 1, 5)) * noise(2, 3, 16, 16, seed=1)).sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert any(decoder.last_layer is parameter for parameter in decoder.parameters())
    assert all(decoder.last_layer is not p for part in decoder.compilable for p in part.parameters())


def test_the_legacy_form_reads_tokens_channel_by_channel() -> None:
    (legacy, _), (plain, _) = pair(**LEGACY), pair(**SIZES, legacy=False)
    plain.load_state_dict(legacy.state_dict())
    images = noise(1, 3, 16, 16)
    seen: list[Tensor] = []
    for encoder in (legacy, plain):
        encoder.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, :, 0]))
        encoder(images)
    torch.testing.assert_close(seen[0], seen[1].T.reshape(8, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "image_size 16 is no multiple of patch_size 5"),
        ({"decoder_heads": 5}, "decoder_width 12 is no multiple of decoder_heads 5"),
        ({"legacy": True, "pixel_channels": (32, 32)}, "enlarge 2 times; decoder_patch_size is 4"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TiTokConfig(**{**SIZES, "legacy": False, **change})


@pytest.mark.parametrize("name", ["image_size", "patch_size", "tokens", "width", "layers", "heads", "legacy"])
def test_each_option_of_the_encoder_is_in_the_identity(name: str) -> None:
    assert set(TiTokConfig(**LEGACY).code_identity()) == {
        "kind",
        "image_size",
        "patch_size",
        "tokens",
        "width",
        "layers",
        "heads",
        "legacy",
    }
    assert name in TiTokConfig(**LEGACY).code_identity()


# --- codes that are a sequence


def test_a_grid_belongs_to_every_size_that_fits() -> None:
    grid = ConvConfig(patch_size=2, channels=(8, 16))
    assert (grid.grid(16, 24), grid.takes(16, 24), grid.takes(16, 18)) == ((4, 6), True, False)
    assert grid.sizes == "multiples of 4 (the downsampling)"
    sequence = TiTokConfig(**LEGACY)
    assert (sequence.grid(16, 16), sequence.takes(16, 16), sequence.takes(32, 32)) == ((1, 5), True, False)
    assert sequence.sizes == "16x16 alone"


def test_another_size_is_refused_everywhere(tmp_path: Path) -> None:
    tokenizer = tiny()
    tokenizer.save(tmp_path / "tokenizer")
    pictures = fill(tmp_path / "pictures", ["a.png"])
    with pytest.raises(ValueError, match="size 32: the networks take images of 16x16 alone"):
        TokenizerConfig(network=tokenizer.config.network, size=32)
    with pytest.raises(ValueError, match=r"data\.crop 8: the networks take images of 16x16 alone"):
        TrainConfig(tokenizer=tokenizer.config, data={"crop": 8})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--size 32: the tokenizer takes images of 16x16 alone; leave out --size"):
        encode([pictures], tmp_path / "tokens", tmp_path / "tokenizer", size=32)
    with pytest.raises(ConfigError, match="--size 32: the tokenizer takes images of 16x16 alone"):
        evaluate(tmp_path / "tokenizer", [pictures], size=32)


def test_codes_made_elsewhere_are_written_as_a_sequence(tmp_path: Path) -> None:
    tokenizer = tiny()
    codes = torch.randint(16, (3, 1, 5), generator=torch.Generator().manual_seed(0))
    dataset = write_tokens(tmp_path / "tokens", ["a", "b", "c"], codes, tokenizer=tokenizer)
    assert (dataset.grid, dataset.info.size, dataset.info.downsample) == ((1, 5), 16, None)
    assert torch.equal(torch.as_tensor(dataset[1][1]), codes[1])
    with pytest.raises(TokensError, match=r"this tokenizer needs \(N, 1, 5\)"):
        write_tokens(tmp_path / "others", ["a"], torch.zeros(1, 5, 5, dtype=torch.int64), tokenizer=tokenizer)


def test_pictures_of_codes_are_refused_for_a_sequence(tmp_path: Path) -> None:
    codes = torch.zeros(1, 1, 5, dtype=torch.int64)
    folder = write_tokens(tmp_path / "tokens", ["a"], codes, tokenizer=tiny()).folder
    assert analyze(folder).statistics.grid == (1, 5)
    with pytest.raises(ConfigError, match="its codes are a sequence"):
        analyze(folder, tokenizer=folder)
