"""The adapter for sequences gives what the quantizer gives for the same vectors in a grid."""

from __future__ import annotations

import pytest
import torch
from families import QUANTIZERS, make, noise

from imtok.quantizers import FSQ, ResidualQuantizer, SequenceQuantizer, VectorQuantizer


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_sequence_is_quantized_as_the_same_vectors_in_a_grid(name: str) -> None:
    sequences, grids = SequenceQuantizer(make(name)).eval(), make(name).eval()
    latents = noise(2, 6, grids.dim)
    out, expected = sequences(latents), grids(latents.transpose(1, 2).reshape(2, grids.dim, 2, 3))
    assert torch.equal(out.latents, expected.latents.flatten(2).transpose(1, 2))
    assert torch.equal(out.codes, expected.codes.flatten(1, 2))
    torch.testing.assert_close(out.loss, expected.loss)
    assert torch.equal(sequences.lookup(out.codes), out.latents)


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
