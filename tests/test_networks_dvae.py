"""DALL-E's encoder and decoder: their arithmetic, sizes and identity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import ConfigError
from imtok.networks.dvae import DVAEBlock, DVAEDecoder, DVAEEncoder
from imtok.networks.dvae_config import DVAEConfig
from imtok.quantizer_config import FSQConfig, GumbelConfig
from imtok.quantizers import GumbelQuantizer
from imtok.tokenizer import Tokenizer

SMALL = DVAEConfig(width=4, blocks=1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_grid_is_eight_times_smaller_and_back() -> None:
    encoder, decoder = SMALL.build(5, 6, 6)
    latents = encoder(noise(2, 3, 16, 24))
    assert latents.shape == (2, 5, 2, 3)
    assert decoder(noise(2, 6, 2, 3)).shape == (2, 6, 16, 24)


def test_a_block_adds_its_scaled_path() -> None:
    block = DVAEBlock(8, 12, (3, 3, 3, 1), gain=0.25)
    x = noise(2, 8, 5, 5)
    hidden = x
    for number, kernel in enumerate((3, 3, 3, 1), start=1):
        layer = block.path.get_submodule(f"conv_{number}")
        hidden = F.conv2d(F.relu(hidden), layer.weight, layer.bias, padding=kernel // 2)  # type: ignore[arg-type]
    shortcut = F.conv2d(x, block.shortcut.weight, block.shortcut.bias)  # type: ignore[arg-type]
    torch.testing.assert_close(block(x), shortcut + 0.25 * hidden)
    assert hidden.shape == (2, 12, 5, 5)
    assert block.path.get_submodule("conv_2").weight.shape == (3, 3, 3, 3)


@pytest.mark.parametrize(("blocks", "gain"), [(1, 1 / 16), (2, 1 / 64)])
def test_the_scale_falls_with_the_square_of_all_blocks(blocks: int, gain: float) -> None:
    for network in DVAEConfig(width=4, blocks=blocks).build(5, 6):
        gains = [block.gain for block in network.modules() if isinstance(block, DVAEBlock)]
        assert gains == [gain] * 4 * blocks


def test_pixels_are_mapped_inside_the_interval_first() -> None:
    encoder, _ = SMALL.build(5, 6)
    assert isinstance(encoder, DVAEEncoder)
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.1, 0.5, 0.9]))


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    encoder, decoder = SMALL.build(5, 5)
    decoder(encoder(noise(1, 3, 16, 16))).square().sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_last_layer_makes_the_images() -> None:
    encoder, decoder = SMALL.build(5, 5)
    assert isinstance(decoder, DVAEDecoder)
    assert decoder.last_layer is decoder.conv_out.weight
    for network in (encoder, decoder):
        trunk = {id(parameter) for part in network.compilable for parameter in part.parameters()}
        assert len(trunk) == len(list(network.parameters())) - 2  # all but the last convolution


def test_a_quantizer_without_projection_takes_the_features() -> None:
    bare = DVAEConfig(width=4, blocks=1, projection=False)
    encoder, _ = bare.build(32, 6)
    features = encoder(noise(1, 3, 8, 8))
    assert features.shape == (1, 32, 1, 1)
    assert features.min() >= 0
    with pytest.raises(ConfigError, match=r"32 features .* takes 8; set network.projection=true or quantizer.dim=32"):
        bare.build(8, 6)


def test_published_sizes_have_as_many_parameters() -> None:
    """openai/DALL-E's own modules have 53,786,240 and 43,829,766; 128 are biases that the codebook has taken in."""
    with torch.device("meta"):
        encoder, decoder = DVAEConfig(projection=False).build(2048, 128, 6)
        quantizer = GumbelQuantizer(2048, 8192, code_dim=128)
    counts = [sum(p.numel() for p in part.parameters()) for part in (encoder, quantizer.projection, decoder)]
    assert counts[0] + counts[1] == 53_786_240
    assert counts[2] + quantizer.codebook.numel() == 43_829_766 - 128


def test_every_field_that_decides_codes_is_in_the_identity() -> None:
    assert DVAEConfig().code_identity() == {"kind": "dvae", "width": 256, "blocks": 2, "projection": True}
    assert set(DVAEConfig.model_fields) == set(DVAEConfig().code_identity())


@pytest.mark.parametrize("quantizer", [FSQConfig(levels=(5, 5)), GumbelConfig(dim=4, num_codes=16, code_dim=6)])
def test_a_tokenizer_of_it_decodes_its_codes(quantizer: FSQConfig | GumbelConfig) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(network=SMALL, quantizer=quantizer, size=16)).eval()
    codes = tokenizer.encode(noise(2, 3, 16, 16).clamp(-1, 1))
    assert codes.shape == (2, 2, 2)
    assert tokenizer.decode(codes).shape == (2, 3, 16, 16)
