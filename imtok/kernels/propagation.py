"""Index propagation (Shi et al., 2024, "Taming Scalable Visual Tokenizer for Autoregressive Image Generation", IBQ)."""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

from torch import Tensor

from imtok.kernels.entropy import assignment_logits


def propagate_index(latents: Tensor, chosen: Tensor, codebook: Tensor) -> Tensor:
    """The chosen codes, whose gradient reaches every code: (N, D), (N, D), (K, D) -> (N, D).

    Equation 4, (one_hot - sg[p] + p) E with p = softmax(z.e). The value is `chosen` to the last bit. The one-hot is
    the factor of E, so a chosen row takes the gradient as it is; p takes it against E as a constant, and passes it on
    to the latents and to all codes. The N x K table is inherent: every entry of p has a gradient.
    """
    shares = assignment_logits(latents, codebook, "dot").softmax(dim=1)  # (N, K)
    soft = shares @ codebook.detach().to(latents.dtype)
    return chosen + (soft - soft.detach())
