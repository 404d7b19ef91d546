"""VQGAN's encoder and decoder, and the options by which published networks differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.config import TokenizerConfig, load_train_config, merge, parse_settings
from imtok.errors import ConfigError
from imtok.networks import VQGANDecoder, VQGANEncoder
from imtok.networks.vqgan_blocks import (
    AdaptiveNorm,
    Attention,
    DepthToSpace,
    ResidualBlock,
    SpatialNorm,
    SymmetricDownsample,
)
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import FSQConfig, LFQConfig, VQConfig
from imtok.tokenizer import Tokenizer, load

SMALL: dict[str, Any] = {"channels": (8, 12), "blocks": 1, "attention_stages": (1,), "latent_channels": 6}
SMALL |= {"norm_groups": 4}
OPEN_MAGVIT2: dict[str, Any] = {"downsampling": "strided_symmetric", "upsampling": "depth_to_space", "bias": False}
OPEN_MAGVIT2 |= {"middle_attention": False, "attention_stages": (), "latent_channels": None, "adaptive_norm": True}
OPEN_MAGVIT2 |= {"last_kernel": 1, "decoder_blocks": 1}
MASKGIT: dict[str, Any] = {"downsampling": "average", "shortcut": "output", "image_range": "0..1", "bias": False}
MASKGIT |= {"middle_attention": False, "attention_stages": (), "latent_channels": None, "last_kernel": 1}
# An option of each kind that decides codes, and those that do not.
OF_ENCODER: dict[str, Any] = {
    "channels": (12, 12),
    "stem_channels": 12,
    "blocks": 2,
    "attention_stages": (0,),
    "middle_blocks": 3,
    "middle_attention": False,
    "latent_channels": 8,
    "norm_groups": 2,
    "norm_eps": 1e-5,
    "last_kernel": 1,
    "bias": False,
    "downsampling": "average",
    "shortcut": "output",
    "image_range": "0..1",
}
OF_DECODER: dict[str, Any] = {
    "decoder_channels": (12, 8),
    "decoder_blocks": 1,
    "decoder_attention_stages": (),
    "upsampling": "depth_to_space",
    "adaptive_norm": True,
    "spatial_norm": True,
}
MOVQ: dict[str, Any] = {"spatial_norm": True}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(**options: Any) -> VQGANConfig:
    return VQGANConfig(**{**SMALL, **options})


def pair(**options: Any) -> tuple[VQGANEncoder, VQGANDecoder]:
    torch.manual_seed(0)
    encoder, decoder = small(**options).build(5, 5)
    assert isinstance(encoder, VQGANEncoder)
    assert isinstance(decoder, VQGANDecoder)
    return encoder, decoder


@pytest.mark.parametrize(
    "options", [{}, OPEN_MAGVIT2, MASKGIT, MOVQ, {"decoder_channels": (12, 8)}, {"channels": (8,)}]
)
def test_the_grid_is_smaller_by_the_downsampling_and_back(options: dict[str, Any]) -> None:
    if options.get("channels"):
        options = {**options, "attention_stages": ()}
    encoder, decoder = pair(**options)
    downsample = small(**options).downsample
    latents = encoder(noise(2, 3, 2 * downsample, 3 * downsample))
    assert latents.shape == (2, 5, 2, 3)
    assert decoder(latents).shape == (2, 3, 2 * downsample, 3 * downsample)


def test_the_defaults_are_the_published_f16_network() -> None:
    with torch.device("meta"):
        encoder, decoder = VQGANConfig().build(256, 256)
    counts = [sum(p.numel() for p in network.parameters()) for network in (encoder, decoder)]
    # As taming-transformers' own modules count, each with its 1 x 1 convolution beside the quantizer.
    assert counts == [29_363_968, 42_515_587]


def test_blocks_and_attention_stand_where_the_configuration_says() -> None:
    encoder, decoder = pair(channels=(8, 8, 12), blocks=2, attention_stages=(0, 2), decoder_attention_stages=(1,))
    assert [len(stage.block) for stage in encoder.trunk.down] == [2, 2, 2]
    assert [len(stage.attn) for stage in encoder.trunk.down] == [2, 0, 2]
    assert [len(stage.block) for stage in decoder.trunk.up] == [3, 3, 3]
    assert [len(stage.attn) for stage in decoder.trunk.up] == [0, 3, 0]
    assert [type(layer) for layer in encoder.trunk.mid] == [ResidualBlock, Attention, ResidualBlock]
    assert [type(layer) for layer in pair(middle_attention=False, middle_blocks=1)[1].trunk.mid] == [ResidualBlock]


@pytest.mark.parametrize("options", [{}, OPEN_MAGVIT2, MASKGIT, MOVQ])
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    encoder, decoder = pair(**options)
    weights = noise(2, 3, 8, 8, seed=1)
    (decoder(encoder(noise(2, 3, 8, 8))) * weights).sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            if not name.endswith((".k.bias", "gamma.weight")):  # softmax is blind to what all keys share
                assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", [{}, OPEN_MAGVIT2, MASKGIT, MOVQ])
def test_images_of_a_batch_do_not_mix(options: dict[str, Any]) -> None:
    encoder, decoder = pair(**options)
    images = noise(3, 3, 8, 8)
    together = decoder(encoder(images))
    for index in range(3):
        alone = decoder(encoder(images[index : index + 1]))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


def test_the_shortcut_reads_the_input_or_the_output() -> None:
    x = noise(2, 8, 4, 4)
    for kind in ("input", "output"):
        block = ResidualBlock(8, 12, small(shortcut=kind))
        hidden = block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))))
        assert block.shortcut is not None
        expected = hidden + block.shortcut(x if kind == "input" else hidden)
        torch.testing.assert_close(block(x), expected)
        same = ResidualBlock(8, 8, small(shortcut=kind))
        assert same.shortcut is None
        inner = same.conv2(F.silu(same.norm2(same.conv1(F.silu(same.norm1(x))))))
        torch.testing.assert_close(same(x), x + inner)


def test_attention_is_the_softmax_of_scaled_products() -> None:
    layer = Attention(8, small())
    x = noise(2, 8, 3, 2)
    query, key, value = (each(layer.norm(x)).flatten(2) for each in (layer.q, layer.k, layer.v))  # (B, C, HW) each
    weights = (query.transpose(1, 2) @ key / 8**0.5).softmax(dim=-1)  # (B, HW, HW)
    mixed = (value @ weights.transpose(1, 2)).view(2, 8, 3, 2)
    torch.testing.assert_close(layer(x), x + layer.proj_out(mixed), atol=1e-5, rtol=1e-4)


def test_symmetric_downsampling_pads_all_sides() -> None:
    layer = SymmetricDownsample(1)
    x = noise(1, 1, 6, 4)
    with torch.no_grad():
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        layer.conv.weight.zero_()[0, 0, 1, 1] = 1
        torch.testing.assert_close(layer(x), x[:, :, ::2, ::2])
        layer.conv.weight.zero_()[0, 0, 0, 0] = 1
        torch.testing.assert_close(layer(x), F.pad(x, (1, 0, 1, 0))[:, :, :-1:2, :-1:2])


def test_depth_to_space_spreads_channels_in_the_published_order() -> None:
    layer = DepthToSpace(2)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.copy_(torch.arange(8.0))  # type: ignore[union-attr]
        out = layer(noise(1, 2, 1, 1))
    assert out[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_the_spatial_norm_scales_and_shifts_by_the_code_there() -> None:
    torch.manual_seed(0)
    norm = SpatialNorm(8, 3, small())
    x, codes = noise(2, 8, 4, 6), noise(2, 3, 2, 3, seed=1)
    normal = F.group_norm(x, 4, norm.norm_layer.weight, norm.norm_layer.bias, 1e-6)
    repeated = codes.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    scale, shift = (
        torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], repeated) for conv in (norm.conv_y, norm.conv_b)
    )
    scale, shift = scale + norm.conv_y.bias[:, None, None], shift + norm.conv_b.bias[:, None, None]  # type: ignore[index]
    torch.testing.assert_close(norm(x, codes), normal * scale + shift, atol=1e-5, rtol=1e-4)


def test_every_norm_of_a_spatial_decoder_reads_the_codes_themselves() -> None:
    _, decoder = pair(**MOVQ, latent_channels=6)
    assert not [
        name
        for name, layer in decoder.named_modules()
        if name.endswith(("norm1", "norm2", "norm", "norm_out")) and not isinstance(layer, SpatialNorm)
    ]
    latents, codes = noise(1, 6, 2, 2), noise(1, 5, 2, 2, seed=1)
    assert decoder.post_quant_conv is not None
    torch.testing.assert_close(decoder(codes), decoder.decode(decoder.post_quant_conv(codes), codes))
    assert not torch.allclose(decoder.decode(latents, codes), decoder.decode(latents, codes + 1))


def test_the_adaptive_norm_scales_by_deviation_and_shifts_by_mean() -> None:
    layer = AdaptiveNorm(4, 2, small())
    x, codes = noise(2, 4, 4, 4), noise(2, 2, 3, 3, seed=1)
    deviation = (codes.flatten(2).var(dim=2) + 1e-6).sqrt()
    scale, shift = layer.gamma(deviation)[:, :, None, None], layer.beta(codes.mean(dim=(2, 3)))[:, :, None, None]
    torch.testing.assert_close(layer(x, codes), F.group_norm(x, 4, eps=1e-6) * scale + shift)
    assert torch.isfinite(layer(x, noise(2, 2, 1, 1))).all()


def test_a_network_of_unit_range_maps_images_in_and_out() -> None:
    encoder, decoder = pair(image_range="0..1")
    signed, plain = pair()
    signed.load_state_dict(encoder.state_dict())
    plain.load_state_dict(decoder.state_dict())
    images = noise(2, 3, 8, 8)
    torch.testing.assert_close(encoder(images), signed((images + 1) / 2))
    latents = noise(2, 5, 4, 4)
    torch.testing.assert_close(decoder(latents), plain(latents) * 2 - 1)


def test_encoder_and_decoder_name_what_the_trainer_needs() -> None:
    encoder, decoder = small().build(4, 6, output_channels=5)
    assert [*encoder.compilable, *decoder.compilable] == [encoder.trunk, decoder.trunk]
    assert decoder.last_layer.shape == (5, 8, 3, 3)
    assert decoder(noise(1, 6, 4, 4)).shape == (1, 5, 8, 8)


def test_without_projections_the_network_gives_the_latents_itself() -> None:
    encoder, decoder = pair(latent_channels=None)
    assert encoder.quant_conv is None
    assert decoder.post_quant_conv is None
    assert encoder.conv_out.out_channels == 5


# --- the configuration


@pytest.mark.parametrize("name", OF_ENCODER)
def test_each_option_of_the_encoder_is_in_the_identity(name: str) -> None:
    changed = small(**{name: OF_ENCODER[name]})
    assert changed.code_identity() != small().code_identity()


def test_options_of_the_decoder_leave_the_fingerprint_alone() -> None:
    assert set(VQGANConfig.model_fields) == {"kind", *OF_ENCODER, *OF_DECODER}
    for name, value in OF_DECODER.items():
        assert small(**{name: value}).code_identity() == small().code_identity()


def test_the_value_range_alone_changes_the_fingerprint() -> None:
    prints = set()
    for image_range in ("-1..1", "0..1"):
        torch.manual_seed(0)
        config = TokenizerConfig(network=small(image_range=image_range), quantizer=FSQConfig(levels=(5, 5)), size=8)
        prints.add(Tokenizer(config).fingerprint)
    assert len(prints) == 2


def test_an_option_left_at_its_default_changes_no_identity() -> None:
    assert small(stem_channels=8).code_identity() == small().code_identity()
    assert small(decoder_channels=(8, 12), decoder_blocks=2).code_identity() == small().code_identity()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_norm": True, "adaptive_norm": True}, "both scale the decoder by the codes"),
        ({"decoder_channels": (8,)}, "decoder_channels has 1 stages and channels 2"),
        ({"attention_stages": (2,)}, "attention_stages has stage 2, the last of 2 stages is number 1"),
        ({"decoder_attention_stages": (5,)}, "decoder_attention_stages has stage 5"),
        ({"channels": (8, 10)}, "10 channels do not divide into norm_groups 4"),
        ({"stem_channels": 6}, "6 channels do not divide into norm_groups 4"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("order", [1, -1])
def test_the_kind_is_set_before_or_after_its_fields(order: int) -> None:
    settings = ["network.kind=vqgan", "network.blocks=1", "network.latent_channels=64", "network.channels=[32,64]"]
    settings += ["network.attention_stages=[1]"]
    config = load_train_config(
        merge({"tokenizer": {"network": {"fold": 2, "blocks": 3}}}, parse_settings(settings[::order]))
    )
    expected = VQGANConfig(blocks=1, latent_channels=64, channels=(32, 64), attention_stages=(1,))
    assert config.tokenizer.network == expected
    assert load_train_config({"tokenizer": config.tokenizer.model_dump(mode="json")}).tokenizer == config.tokenizer


def test_a_key_of_another_kind_is_said_to_belong_there() -> None:
    with pytest.raises(
        ConfigError, match=r"network\.patch_size: unknown key for kind vqgan; it belongs to network\.kin"
    ):
        load_train_config({"network": {"kind": "vqgan", "patch_size": 2}})
    with pytest.raises(ConfigError, match=r"network\.last_kernel 2: expected 1 or 3"):
        load_train_config({"network": {"kind": "vqgan", "last_kernel": 2}})


@pytest.mark.parametrize(
    ("options", "quantizer"),
    [({}, VQConfig(dim=4, num_codes=16)), (OPEN_MAGVIT2, LFQConfig(dim=6)), (MASKGIT, VQConfig(dim=4, num_codes=16))],
)
def test_a_tokenizer_of_it_is_saved_and_loaded(tmp_path: Any, options: dict[str, Any], quantizer: Any) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(network=small(**options), quantizer=quantizer, size=8)).eval()
    tokenizer.save(tmp_path / "t")
    again = load(tmp_path / "t")
    images = noise(2, 3, 8, 8).clamp(-1, 1)
    codes = tokenizer.encode(images)
    assert torch.equal(again.encode(images), codes)
    assert torch.equal(again.decode(codes), tokenizer.decode(codes))
    assert again.fingerprint == tokenizer.fingerprint
    assert isinstance(again.decoder.conv_out, nn.Conv2d)
