"""What families differ in decides their codes, so each of it alone makes another fingerprint."""

from __future__ import annotations

from typing import Any

import pytest

from imtok.config import TokenizerConfig
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import LFQConfig, VQConfig
from imtok.tokenizer import Tokenizer

NETWORK: dict[str, Any] = {"channels": (32, 32), "blocks": 1, "attention_stages": (), "latent_channels": 8}
VQ: dict[str, Any] = {"dim": 4, "num_codes": 16, "codebook_update": "gradient", "kmeans_start": False}
VQ |= {"revival_threshold": 0.0}


def same_weights(*configs: TokenizerConfig) -> list[str]:
    """Fingerprints of tokenizers that have the weights of the first."""
    tokenizers = [Tokenizer(config) for config in configs]
    for tokenizer in tokenizers:
        tokenizer.load_state_dict(tokenizers[0].state_dict())
    return [tokenizer.fingerprint for tokenizer in tokenizers]


@pytest.mark.parametrize(
    "change",
    [
        {"image_range": "0..1"},
        {"norm_eps": 1e-5},
        {"norm_groups": 16},
        {"downsampling": "strided_symmetric"},
    ],
    ids=str,
)
def test_options_of_the_encoder_are_in_the_fingerprint(change: dict[str, Any]) -> None:
    configs = [
        TokenizerConfig(network=VQGANConfig(**{**NETWORK, **each}), quantizer=VQConfig(**VQ)) for each in ({}, change)
    ]
    first, second = same_weights(*configs)
    assert first != second


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "cosine"},
        {"metric": "dot", "estimator": "index_propagation"},
        {"unit_lookup": True},
    ],
    ids=str,
)
def test_search_and_look_up_are_in_the_fingerprint(change: dict[str, Any]) -> None:
    configs = [
        TokenizerConfig(network=VQGANConfig(**NETWORK), quantizer=VQConfig(**{**VQ, **each})) for each in ({}, change)
    ]
    first, second = same_weights(*configs)
    assert first != second


def test_the_order_of_bits_is_in_the_fingerprint() -> None:
    quantizers = LFQConfig(dim=4), LFQConfig(dim=4, first_bit="least significant")
    configs = [TokenizerConfig(network=VQGANConfig(**NETWORK), quantizer=each) for each in quantizers]
    first, second = same_weights(*configs)
    assert first != second


def test_options_of_the_decoder_are_not_in_the_fingerprint() -> None:
    network = VQGANConfig(**NETWORK, upsampling="nearest"), VQGANConfig(**NETWORK, decoder_attention_stages=())
    configs = [TokenizerConfig(network=each, quantizer=VQConfig(**VQ)) for each in network]
    first, second = same_weights(*configs)
    assert first == second
