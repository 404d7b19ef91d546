"""Emu3's encoder and decoder for still images: an image is a clip of equal frames, of which the first comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.config import TokenizerConfig
from imtok.errors import ConfigError
from imtok.networks.emu3 import CausalConv, Emu3Decoder, Emu3Encoder, FixedNorm, TimeBlock
from imtok.networks.emu3_config import Emu3Config
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import Tokenizer

SMALL: dict[str, Any] = {"channels": (8, 12), "blocks": 1, "attention_stages": (1,), "norm_groups": 4}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(dim: int = 4, **options: Any) -> tuple[Emu3Encoder, Emu3Decoder]:
    """A small pair whose norms over time have statistics of their own."""
    torch.manual_seed(0)
    encoder, decoder = Emu3Config(**{**SMALL, **options}).build(dim, 4)
    assert isinstance(encoder, Emu3Encoder)
    assert isinstance(decoder, Emu3Decoder)
    for network in (encoder, decoder):
        for layer in network.modules():
            if isinstance(layer, FixedNorm):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return encoder, decoder


@pytest.mark.parametrize("time_layers", [0, 1, 2])
def test_the_grid_is_smaller_by_the_downsampling_and_back(time_layers: int) -> None:
    encoder, decoder = pair(5, time_layers=time_layers)
    assert encoder(noise(2, 3, 8, 12)).shape == (2, 5, 4, 6)
    assert decoder(noise(2, 4, 4, 6)).shape == (2, 3, 8, 12)


def test_no_frame_sees_a_later_one() -> None:
    layer = CausalConv(2, 3, (3, 3, 3))
    clip = noise(1, 2, 5, 4, 4)
    changed = clip.clone()
    changed[:, :, 3:] += 1
    torch.testing.assert_close(layer(clip)[:, :, :3], layer(changed)[:, :, :3])
    assert not torch.allclose(layer(clip)[:, :, 3], layer(changed)[:, :, 3])


def test_halving_time_keeps_half_of_the_frames() -> None:
    assert CausalConv(2, 3, (4, 3, 3), stride=2)(noise(1, 2, 4, 5, 5)).shape == (1, 3, 2, 5, 5)


def test_a_clip_of_equal_frames_gives_the_latents() -> None:
    """The frame's network runs once; by every frame of a clip the outcome is the same."""
    encoder, _ = pair()
    images = noise(2, 3, 8, 8)
    clip = torch.stack([encoder.spatial(images) for _ in range(4)], dim=2)
    for layer in encoder.time_conv:
        padded = F.pad(clip, (1, 1, 1, 1, 2, 0))
        clip = F.silu(F.conv3d(padded, layer.conv.weight, layer.conv.bias, stride=(2, 1, 1)))
    expected = encoder.quant_conv(encoder.time_res_stack(clip))[:, :, 0]
    torch.testing.assert_close(encoder(images), expected)


def test_the_image_is_the_first_of_all_decoded_frames() -> None:
    _, decoder = pair()
    latents = noise(2, 4, 4, 4)
    both = torch.cat([decoder.post_quant_conv(latents[:, :, None]), latents[:, :, None]])
    both = decoder.time_res_stack(both)
    for layer in decoder.time_conv:
        both = F.silu(layer(both.repeat_interleave(2, dim=2)))
    assert both.shape[2] == 4
    hidden, codes = both.chunk(2)
    frames = [decoder.spatial.decode(hidden[:, :, number], codes[:, :, number]) for number in range(4)]
    torch.testing.assert_close(decoder(latents), frames[0])
    assert not torch.allclose(frames[0], frames[1])


def test_norms_over_time_are_batch_norms_at_evaluation() -> None:
    block = TimeBlock(3)
    for layer in (block.norm1, block.norm2):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    x = noise(2, 3, 2, 4, 4)
    hidden = x
    for ours, convolution in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        norm = nn.BatchNorm3d(3).eval()
        norm.load_state_dict(ours.state_dict(), strict=False)
        hidden = convolution(F.silu(norm(hidden)))
    torch.testing.assert_close(block.train()(x), x + hidden)


def test_training_changes_no_statistics() -> None:
    encoder, decoder = pair()
    before = {name: value.clone() for name, value in (*encoder.named_buffers(), *decoder.named_buffers())}
    decoder.train()(encoder.train()(noise(2, 3, 8, 8)))
    after = dict((*encoder.named_buffers(), *decoder.named_buffers()))
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_gradients_reach_every_parameter() -> None:
    encoder, decoder = pair()
    (decoder(encoder(noise(2, 3, 8, 8))) * noise(2, 3, 8, 8, seed=1)).sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            if not name.endswith(".k.bias"):  # softmax is blind to what all keys share
                assert parameter.grad.abs().sum() > 0, name


def test_the_last_layer_makes_the_images() -> None:
    _, decoder = pair()
    assert decoder.last_layer is decoder.spatial.conv_out.weight
    assert all(decoder.last_layer is not p for part in decoder.compilable for p in part.parameters())


def test_codes_have_the_channels_of_the_layers_over_time() -> None:
    with pytest.raises(ConfigError, match=r"codes have 8 channels and network.latent_channels is 4"):
        Emu3Config(**SMALL).build(8, 8)


def test_published_sizes_have_as_many_parameters() -> None:
    """transformers' Emu3VQVAE at its default configuration, which is the published one, counts 270,740,287."""
    with torch.device("meta"):
        parts = [*Emu3Config().build(4, 4), VQConfig(dim=4, num_codes=32_768, codebook_update="gradient").build()]
    assert sum(p.numel() for part in parts for p in part.parameters()) == 270_740_287


@pytest.mark.parametrize(
    "options",
    [{"channels": (8, 8)}, {"stem_channels": 12}, {"blocks": 2}, {"attention_stages": ()}, {"time_layers": 1}],
)
def test_every_option_is_in_the_identity(options: dict[str, Any]) -> None:
    assert Emu3Config(**{**SMALL, **options}).code_identity() != Emu3Config(**SMALL).code_identity()


def test_the_identity_tells_it_from_the_network_of_a_frame() -> None:
    config = Emu3Config(**SMALL)
    assert config.code_identity() != config.spatial.code_identity()


def test_a_tokenizer_of_it_decodes_its_codes() -> None:
    torch.manual_seed(0)
    config = TokenizerConfig(network=Emu3Config(**SMALL), quantizer=VQConfig(dim=4, num_codes=16), size=8)
    tokenizer = Tokenizer(config).eval()
    codes = tokenizer.encode(noise(2, 3, 8, 8).clamp(-1, 1))
    assert codes.shape == (2, 4, 4)
    assert tokenizer.decode(codes).shape == (2, 3, 8, 8)
