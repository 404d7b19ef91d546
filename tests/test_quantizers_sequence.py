"""The adapter for sequences gives what the quantizer gives for the same vectors in a grid."""

from __future__ import annotations

import pytest
import torch
from families import QUANTIZERS, make, noise

from imtok.quantizers import FSQ, GumbelQuantizer, ResidualQuantizer, SequenceQuantizer, VectorQuantizer


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_sequence_is_quantized_as_vectors_in_a_grid(name: str) -> None:
    sequences, grids = SequenceQuantizer(make(name)).eval(), make(name).eval()
    latents = noise(2, 6, grids.dim)
    out, expected = sequences(latents), grids(latents.transpose(1, 2).reshape(2, grids.dim, 2, 3))
    assert torch.equal(out.latents, expected.latents.flatten(2).transpose(1, 2))
    assert torch.equal(out.codes, expected.codes.flatten(1, 2))
    torch.testing.assert_close(out.loss, expected.loss)
    assert torch.equal(sequences.lookup(out.codes), out.latents)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_what_the_quantizer_tells_of_itself_the_adapter_tells_too(name: str) -> None:
    quantizer = make(name)
    sequences = SequenceQuantizer(quantizer)
    for attribute in ("dim", "code_dim", "num_codes", "num_codebooks", "loss_weights"):
        assert getattr(sequences, attribute) == getattr(quantizer, attribute), attribute
    tensors = quantizer.code_tensors()
    assert sequences.code_tensors().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in sequences.code_tensors().items())


def test_the_adapter_tells_the_quantizer_how_far_the_run_is() -> None:
    quantizer = GumbelQuantizer(4, 16)
    SequenceQuantizer(quantizer).anneal(0.25)
    assert quantizer.progress.item() == 0.25


def test_the_gradient_reaches_a_sequence() -> None:
    latents = noise(2, 5, 4).requires_grad_()
    out = SequenceQuantizer(VectorQuantizer(4, 16).eval())(latents)
    out.latents.sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.ones(2, 5, 4))


def test_sequences_of_another_shape_are_refused() -> None:
    sequences = SequenceQuantizer(FSQ([5, 5, 5]))
    with pytest.raises(ValueError, match=r"latents are \(2, 3, 6\), expected \(B, N, 3\)"):
        sequences(noise(2, 3, 6))
    with pytest.raises(ValueError, match=r"codes are \(2, 3, 1\), expected \(B, N\)"):
        sequences.lookup(torch.zeros(2, 3, 1, dtype=torch.int64))
    residual = SequenceQuantizer(ResidualQuantizer(VectorQuantizer(4, 16), depth=2))
    with pytest.raises(ValueError, match=r"codes are \(2, 3\), expected \(B, N, Q\)"):
        residual.lookup(torch.zeros(2, 3, dtype=torch.int64))
