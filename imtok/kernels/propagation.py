"""Index propagation (Shi et al., 2024, "Taming Scalable Visual Tokenizer for Autoregressive Image Generation", IBQ)."""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

from torch import Tensor

from imtok.kernels.entropy import assignment_logits


def propagate_index(latents: Tensor, chosen: Tensor, codebook: Tensor) -> Tensor:
    """Return the chosen codes with a gradient that reaches every code: (N, D), (N, D), (K, D) -> (N, D).

    Equation 4 is (one_hot - sg[p] + p) E with p = softmax(z.e). The value equals `chosen` bit for bit. The one-hot
    multiplies E, so a chosen row receives the gradient unchanged. p receives it with E as a constant, and passes it to
    the latents and to all codes. The N x K table cannot be avoided: every entry of p has a gradient.
    """
    shares = assignment_logits(latents, codebook, "dot").softmax(dim=1)  # (N, K)
    soft = shares @ codebook.detach().to(latents.dtype)
    return chosen + (soft - soft.detach())
