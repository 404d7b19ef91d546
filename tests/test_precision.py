"""Codes, pictures and statistics through casts, other default dtypes, the meta device, and averages of models."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from families import QUANTIZERS, make, noise, noise_for
from making import QUANTIZERS as CONFIGS
from making import tiny
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import imtok
from imtok.losses import LeCAM
from imtok.losses.perceptual import ImageNetScaling
from imtok.networks import MaskBitDiscriminator, PatchDiscriminator, StyleGANDiscriminator
from imtok.networks.actnorm import ActNorm
from imtok.networks.spectral_norm import add_spectral_norm
from imtok.precision import keeping_float32
from imtok.quantizers.base import TRAINING_STATE
from imtok.tokenizer import Tokenizer

DISCRIMINATORS = {
    "patch-act": lambda: PatchDiscriminator(4, 1, norm="act"),
    "patch-batch": lambda: PatchDiscriminator(4, 1, norm="batch"),
    "stylegan": lambda: StyleGANDiscriminator(16, channels=4),
    "maskbit": lambda: MaskBitDiscriminator(8, layers=1, pool=4),
    "spectral": lambda: spectral(),
}


def spectral() -> nn.Module:
    network = PatchDiscriminator(4, 1, norm="none")
    add_spectral_norm(network)
    return network


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def filled(build: object, state: dict[str, Tensor], assign: bool) -> nn.Module:
    """Build on the meta device and make the module real, as loaders of large models do."""
    with torch.device("meta"):
        module: nn.Module = build()  # type: ignore[operator]
    if assign:
        module.load_state_dict(state, assign=True)
    else:
        module.to_empty(device="cpu")
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.data.fill_(0 if tensor.dtype == torch.int64 else 77)
        module.load_state_dict(state)
    return module.eval()


@pytest.mark.parametrize("assign", [True, False], ids=["assign", "to_empty"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_from_the_meta_device_is_the_same(name: str, assign: bool) -> None:
    quantizer = make(name).eval()
    state = {
        key: value for key, value in quantizer.state_dict().items() if key.rpartition(".")[2] not in TRAINING_STATE
    }
    other = filled(QUANTIZERS[name], state, assign)
    latents = noise_for(quantizer)
    expected, found = quantizer(latents), other(latents)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(other.lookup(found.codes), quantizer.lookup(expected.codes))  # type: ignore[operator]
    assert torch.equal(found.loss, expected.loss)
    assert not any(tensor.is_meta for key, tensor in other.named_buffers() if not key.endswith("_precision"))
    other.train()(latents)


@pytest.mark.parametrize("assign", [True, False], ids=["assign", "to_empty"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_tokenizer_from_the_meta_device_is_the_same(name: str, assign: bool) -> None:
    tokenizer = tiny(quantizer=CONFIGS[name]).eval()
    other = filled(lambda: Tokenizer(tokenizer.config), tokenizer.state_dict(), assign)
    assert isinstance(other, Tokenizer)
    images = noise(1, 3, 16, 16).clamp(-1, 1)
    codes = tokenizer.encode(images)
    assert torch.equal(other.encode(images), codes)
    assert torch.equal(other.decode(codes), tokenizer.decode(codes))
    assert other.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("assign", [True, False], ids=["assign", "to_empty"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_from_the_meta_device_is_the_same(name: str, assign: bool) -> None:
    network = DISCRIMINATORS[name]().eval()
    other = filled(DISCRIMINATORS[name], network.state_dict(), assign)
    images = noise(2, 3, 16, 16)
    assert torch.equal(other(images), network(images))


def test_the_scaling_of_lpips_survives_casts_and_emptying() -> None:
    images = noise(1, 3, 2, 2)
    expected = ImageNetScaling()(images)
    assert torch.equal(ImageNetScaling().half()(images), expected)
    assert torch.equal(ImageNetScaling().to_empty(device="cpu")(images), expected)
    torch.testing.assert_close(expected[0, 1], (images[0, 1] + 0.088) / 0.448)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_another_default_dtype_changes_no_codebook_count_or_code(name: str, dtype: torch.dtype) -> None:
    quantizer = make(name).train()
    latents = noise_for(quantizer)
    with default_dtype(dtype):
        other = make(name).train()
        assert all(value.dtype in (torch.float32, torch.int64) for value in other.state_dict().values())
        other.load_state_dict(quantizer.state_dict())
        torch.manual_seed(0)
        found = other(latents)
    torch.manual_seed(0)
    expected = quantizer(latents)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.latents, expected.latents)
    assert all(map(torch.equal, other.state_dict().values(), quantizer.state_dict().values()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_tokenizer_is_loaded_as_it_was_saved(dtype: torch.dtype) -> None:
    images, expected = noise(1, 3, 16, 16).clamp(-1, 1), imtok.load()
    with default_dtype(dtype):
        tokenizer = imtok.load()
    assert tokenizer.fingerprint == expected.fingerprint
    assert torch.equal(tokenizer.encode(images), expected.encode(images))


def test_dead_codes_are_found_alike_under_a_narrow_default() -> None:
    quantizers = [make("vq-euclidean-straight_through-ema").train() for _ in range(2)]
    batches = [noise_for(quantizers[0], seed=seed) for seed in range(6)]
    for quantizer, dtype in zip(quantizers, (torch.float32, torch.bfloat16), strict=True):
        quantizer.revival_threshold = 0.9  # type: ignore[assignment]
        torch.manual_seed(0)
        with default_dtype(dtype):
            for latents in batches:
                quantizer(latents)
    assert all(map(torch.equal, *(quantizer.state_dict().values() for quantizer in quantizers)))


def test_averages_and_counts_are_not_made_narrower() -> None:
    lecam = LeCAM().bfloat16()
    assert {value.dtype for value in lecam.state_dict().values()} == {torch.float32}
    norm = ActNorm(2).half()
    norm(300 * noise(4, 2, 64, 64).half())  # sums beyond the largest number of float16
    assert norm.initialized
    cast = keeping_float32(lambda tensor: tensor.to(torch.float16))
    assert cast(torch.ones(1)).dtype == torch.float32
    assert cast(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float16


def test_a_narrow_state_is_widened_when_it_is_assigned() -> None:
    quantizer = make("residual-vq")
    narrow = {key: value.bfloat16() for key, value in quantizer.state_dict().items() if value.is_floating_point()}
    other = make("residual-vq")
    other.load_state_dict(narrow, assign=True)
    assert {value.dtype for value in other.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_an_average_of_models_takes_all_buffers(name: str) -> None:
    quantizer = make(name).train()
    average = AveragedModel(quantizer, use_buffers=True)
    mean = copy.deepcopy(quantizer.state_dict())
    for seed in range(3):
        quantizer(noise_for(quantizer, seed=seed))
        average.update_parameters(quantizer)
        mean = {key: 0.9 * value + 0.1 * quantizer.state_dict()[key] for key, value in mean.items()}
    quantizer.load_state_dict(mean)
    assert all(value.dtype != torch.bool for value in mean.values())
    for started in (value for key, value in average.module.state_dict().items() if key.endswith("started")):
        assert started


@pytest.mark.parametrize("assign", [True, False])
def test_states_whose_flags_are_bools_are_read(assign: bool) -> None:
    for module, name in ((make("vq-euclidean-straight_through-ema"), "started"), (ActNorm(2), "initialized")):
        for flag in (True, False):
            module.load_state_dict(module.state_dict() | {name: torch.tensor(flag)}, assign=assign)
            assert (module.get_buffer(name).dtype, bool(module.get_buffer(name))) == (torch.float32, flag)
