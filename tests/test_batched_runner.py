"""A tokenizer at work in batches gives what it gives at once."""

from __future__ import annotations

import pytest
import torch
from making import QUANTIZERS, tiny

from imtok.analysis.batched_runner import BatchedRunner
from imtok.errors import TokenizerError
from imtok.tokenizer import to_uint8


def noise(images: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_batches_are_encoded_and_decoded_as_the_tokenizer_does(name: str) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS[name])  # in training mode, where an EMA codebook would learn
    heard: list[int] = []
    runner = BatchedRunner(tokenizer, device="cpu", batch_size=2, on_images=heard.append)
    images = noise(3)
    batches = (images[:2], images[2:])
    codes = runner.encode(images)
    assert torch.equal(codes, torch.cat([tokenizer.encode(batch) for batch in batches]))
    expected = torch.cat([to_uint8(tokenizer.decode(batch)) for batch in (codes[:2], codes[2:])])
    assert torch.equal(runner.decode(codes), expected)
    assert heard == [2, 3, 5, 6]
    assert tokenizer.training


def test_latents_are_those_the_codes_stand_for() -> None:
    tokenizer = tiny(quantizer=QUANTIZERS["lfq"])
    ((latents, quantized),) = BatchedRunner(tokenizer, device="cpu").latents(noise(2))
    assert latents.shape == (2, 6, 4, 4)
    assert torch.equal(quantized.latents, latents.sign())
    assert not latents.requires_grad


def test_a_tokenizer_without_finite_weights_is_refused_in_one_line() -> None:
    tokenizer = tiny(quantizer=QUANTIZERS["vq"])
    torch.nn.init.constant_(tokenizer.encoder.conv_out.weight, float("nan"))
    with pytest.raises(TokenizerError, match=r"cannot encode its pictures: the latents .* hold NaN"):
        BatchedRunner(tokenizer, device="cpu").encode(noise(1))
