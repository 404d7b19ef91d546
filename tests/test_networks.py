"""The encoder and decoder, and the blocks they are made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.config import NetworkConfig, load_train_config, merge
from imtok.errors import ConfigError
from imtok.networks import ConvDecoder, ConvEncoder
from imtok.networks.blocks import Attention, Downsample, ResidualBlock, Upsample, group_norm
from imtok.networks.conv_config import ConvConfig


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(
    dim: int = 3, patch_size: int = 2, channels: Sequence[int] = (8, 12), blocks: int = 1, attention: bool = False
) -> tuple[ConvEncoder, ConvDecoder]:
    torch.manual_seed(0)
    shape = {"patch_size": patch_size, "channels": channels, "blocks": blocks, "attention": attention}
    return ConvEncoder(dim, **shape), ConvDecoder(dim, **shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("channels", [(8,), (8, 12), (8, 12, 16)])
def test_the_grid_is_smaller_by_the_downsampling_and_back(
    patch_size: int, channels: tuple[int, ...], attention: bool
) -> None:
    encoder, decoder = pair(5, patch_size, channels, attention=attention)
    downsample = NetworkConfig(patch_size=patch_size, channels=channels).downsample
    assert downsample == patch_size * 2 ** (len(channels) - 1)
    latents = encoder(noise(2, 3, 2 * downsample, 3 * downsample))
    assert latents.shape == (2, 5, 2, 3)
    assert decoder(latents).shape == (2, 3, 2 * downsample, 3 * downsample)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_each_stage_has_as_many_blocks_as_asked_for(blocks: int) -> None:
    for network in pair(blocks=blocks, channels=(8, 12)):
        assert sum(isinstance(layer, ResidualBlock) for layer in network.modules()) == 2 * blocks
    for network in pair(blocks=blocks, channels=(8, 12), attention=True):
        assert sum(isinstance(layer, ResidualBlock) for layer in network.modules()) == 2 * blocks + 1
        assert sum(isinstance(layer, Attention) for layer in network.modules()) == 1


def test_gradients_reach_every_parameter() -> None:
    encoder, decoder = pair(attention=True)
    decoder(encoder(noise(1, 3, 8, 8))).square().sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_images_of_a_batch_do_not_mix() -> None:
    encoder, decoder = pair(attention=True)
    images = noise(3, 3, 8, 8)
    together = decoder(encoder(images))
    for index in range(3):
        alone = decoder(encoder(images[index : index + 1]))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


def test_with_attention_every_pixel_matters_to_every_latent() -> None:
    images = noise(1, 3, 64, 64).requires_grad_()
    reach = {}
    for attention in (False, True):
        encoder, _ = pair(attention=attention)
        encoder.norm_out = nn.Identity()  # a group norm alone would already carry something everywhere
        for block in encoder.modules():
            if isinstance(block, ResidualBlock | Attention):
                for name in ("norm", "norm1", "norm2"):
                    if hasattr(block, name):
                        setattr(block, name, nn.Identity())
        (gradient,) = torch.autograd.grad(encoder(images)[0, 0, 0, 0], images)
        reach[attention] = bool(gradient[0, :, -2:, -2:].abs().sum() > 0)
    assert reach == {False: False, True: True}


def test_downsampling_pads_right_and_below_only() -> None:
    layer = Downsample(1, 1)
    x = noise(1, 1, 6, 4)
    with torch.no_grad():
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        layer.conv.weight.zero_()[0, 0, 0, 0] = 1
        torch.testing.assert_close(layer(x), x[:, :, ::2, ::2])
        layer.conv.weight.zero_()[0, 0, 2, 2] = 1
        torch.testing.assert_close(layer(x), F.pad(x, (0, 1, 0, 1))[:, :, 2::2, 2::2])


def test_upsampling_repeats_pixels() -> None:
    layer = Upsample(1, 1)
    with torch.no_grad():
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        layer.conv.weight.zero_()[0, 0, 1, 1] = 1
        out = layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert out[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_a_residual_block_adds_to_its_input() -> None:
    block = ResidualBlock(8)
    x = noise(2, 8, 4, 4)
    inner = block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))))
    torch.testing.assert_close(block(x), x + inner)


def test_attention_is_the_softmax_of_scaled_products_over_all_positions() -> None:
    torch.manual_seed(0)
    layer = Attention(8)
    x = noise(2, 8, 3, 2)
    query, key, value = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, HW) each
    weights = (query.transpose(1, 2) @ key / 8**0.5).softmax(dim=-1)  # (B, HW, HW)
    mixed = (value @ weights.transpose(1, 2)).view(2, 8, 3, 2)
    torch.testing.assert_close(layer(x), x + layer.out(mixed), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("channels", "groups"), [(128, 32), (64, 16), (96, 16), (12, 2), (8, 2), (6, 1), (5, 1), (4, 1)]
)
def test_groups_have_at_least_four_channels_and_divide_them(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert norm.num_groups == groups
    torch.testing.assert_close(norm(noise(2, channels, 4, 4)).mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


# --- the configuration


def test_a_field_added_later_changes_no_identity() -> None:
    class LaterConfig(ConvConfig):
        dropout: float = 0.0

    assert LaterConfig().code_identity() == ConvConfig().code_identity()
    assert list(ConvConfig().code_identity()) == ["fold", "channels", "blocks", "attention"]


def test_the_patch_size_is_read_and_written_as_fold_too() -> None:
    config = ConvConfig(patch_size=2)
    assert config == NetworkConfig(fold=2) == ConvConfig.model_validate(config.model_dump())
    assert config.model_dump(mode="json") == {"fold": 2, "channels": [64, 128], "blocks": 2, "attention": False}
    assert config.fold == 2
    assert config.model_dump(exclude={"kind", "channels"}) == {"fold": 2, "blocks": 2, "attention": False}
    assert config.model_dump(exclude_defaults=True) == {"fold": 2}
    with pytest.raises(ValueError, match="fold is the former name of patch_size; give one of them"):
        ConvConfig.model_validate({"fold": 2, "patch_size": 2})


@pytest.mark.parametrize(("lower", "upper"), [("fold", "patch_size"), ("patch_size", "fold"), ("fold", "fold")])
def test_either_name_of_the_patch_size_overrides_the_other(lower: str, upper: str) -> None:
    layers = [{"tokenizer": {"network": {name: size}}} for name, size in ((lower, 2), (upper, 8))]
    assert load_train_config(merge(*layers)).tokenizer.network == ConvConfig(patch_size=8)


def test_another_kind_of_network_replaces_the_whole_of_it() -> None:
    base, over = {"network": {"fold": 2, "blocks": 1}}, {"network": {"kind": "other", "layers": 3}}
    assert merge(base, over) == over
    assert merge(over, {"network": {"layers": 4}}) == {"network": {"kind": "other", "layers": 4}}


def test_encoder_and_decoder_name_what_the_trainer_needs() -> None:
    encoder, decoder = ConvConfig(channels=(8,), blocks=1).build(4, 6, output_channels=5)
    assert [*encoder.compilable, *decoder.compilable] == [encoder.trunk, decoder.trunk]
    assert decoder.last_layer.shape == (5 * 4**2, 8, 3, 3)
    assert decoder(encoder(noise(1, 3, 8, 8)).repeat(1, 2, 1, 1)[:, :6]).shape == (1, 5, 8, 8)


def test_a_misspelt_former_name_is_recognised() -> None:
    with pytest.raises(ConfigError, match=r"network\.folds: unknown key for kind conv; did you mean fold\?"):
        load_train_config({"network": {"folds": 2}})
