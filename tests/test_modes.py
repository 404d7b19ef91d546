"""Evaluation for a while: modes come back module by module."""

from __future__ import annotations

import pytest
import torch
from making import QUANTIZERS, tiny
from torch import nn

from imtok.analysis.batched_runner import BatchedRunner
from imtok.errors import TokenizerError
from imtok.modes import evaluating


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def test_every_module_gets_back_the_mode_it_had() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.Dropout())).train()
    module[1][0].eval()  # type: ignore[index]
    before = modes(module)
    within = []
    with pytest.raises(KeyError), evaluating(module):
        raise KeyError(within.append(modes(module)))
    assert within == [[False] * 5]
    assert modes(module) == before == [True, True, True, False, True]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_frozen_part_stays_frozen_through_encode_and_decode(name: str) -> None:
    tokenizer, images = tiny(quantizer=QUANTIZERS[name]).train(), torch.zeros(1, 3, 16, 16)
    tokenizer.encoder.eval()
    tokenizer.quantizer.eval()
    before, fingerprint = modes(tokenizer), tokenizer.fingerprint
    tokenizer.decode(tokenizer.encode(images))
    BatchedRunner(tokenizer, device="cpu").encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(TokenizerError):
        tokenizer.decode(torch.full_like(tokenizer.encode(images), -1))
    assert modes(tokenizer) == before
    tokenizer(images)
    assert tokenizer.fingerprint == fingerprint


def test_a_waking_part_of_a_tokenizer_at_rest_learns_nothing() -> None:
    tokenizer = tiny(quantizer=QUANTIZERS["vq"]).eval()
    tokenizer.quantizer.train()
    fingerprint = tokenizer.fingerprint
    tokenizer.encode(torch.zeros(1, 3, 16, 16))
    assert tokenizer.fingerprint == fingerprint
    assert tokenizer.quantizer.training
