"""Signs and the codes that number them, for LFQ and BSQ.

A code is the number whose bits are the signs, + being 1; dimension 0 is the MOST significant bit, as in
vector-quantize-pytorch and bsq-vit. Yu et al. (2023, equation 4) and Open-MAGVIT2 have it least significant:
`reverse_bits` goes between the two.
"""

# Axes: B batch, D latent channels, H x W latent grid; S grid positions, S = H*W.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imtok.kernels.compiling import Kernel

_MOST_BITS = 31


def sign_codes(latents: Tensor, magnitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return signs and their codes: (B, D, H, W) float -> the same shape of +-magnitude, (B, H, W) int64 in [0, 2^D).

    Values above zero give +, all others -, zero and minus zero included. The gradient passes straight through. A
    position with a NaN or infinite latent has the code -1.

    Raises ValueError on other shapes and on more than 31 dimensions.
    """
    if latents.ndim != 4 or not 1 <= latents.shape[1] <= _MOST_BITS:
        raise ValueError(f"latents are {tuple(latents.shape)}, expected (B, D, H, W) with D from 1 to {_MOST_BITS}")
    values, codes = _Signs.apply(latents, magnitude)
    # Shaped out here: what a Function makes a view, its caller could not change in place.
    return values.view(latents.shape), codes.view(latents.shape[0], *latents.shape[2:])


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
        ctx.shape = latents.shape
        flat = latents.contiguous().flatten(2)
        family = (latents.device.type, latents.dtype, flat.shape[1], magnitude)
        values, codes = _signs(flat, magnitude, family=family, work=latents.numel())
        ctx.mark_non_differentiable(codes)
        return values, codes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].view(ctx.shape), None


def _signs_flat(latents: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
    """Quantize (B, D, S) to values (B, D, S), codes (B, S); dimensions are written out, so that each is read once."""
    values = []
    # In float32, as look-up gives them; plain numbers would have torch's default type.
    high = latents.new_full((), magnitude, dtype=torch.float32).to(latents.dtype)
    low = -high
    codes = torch.zeros_like(latents[:, 0], dtype=torch.int32)  # vectorised, where int64 is not; D is at most 31
    not_finite = torch.zeros_like(latents[:, 0])
    for dimension in range(latents.shape[1]):
        column = latents[:, dimension]  # (B, S)
        positive = column > 0
        values.append(torch.where(positive, high, low))
        codes = codes * 2 + positive.to(torch.int32)
        not_finite = not_finite + column * 0  # NaN then, else zero
    return torch.stack(values, dim=1), torch.where(not_finite == 0, codes, -1).long()


def codes_to_signs(codes: Tensor, dim: int) -> Tensor:
    """Invert `sign_codes`: (B, H, W) integers in [0, 2^D) -> (B, D, H, W) float32 of -1 or 1."""
    shifts = torch.arange(dim - 1, -1, -1, device=codes.device).view(-1, 1, 1)
    bits = torch.bitwise_right_shift(codes.long().unsqueeze(1), shifts) & 1  # by its name, which ONNX export knows
    return (bits * 2 - 1).float()


def reverse_bits(codes: Tensor, dim: int) -> Tensor:
    """Reverse the order of `dim` bits: (...) integers in [0, 2^dim) -> (...) int64; the function is its own inverse."""
    codes = codes.long()
    reversed_codes = torch.zeros_like(codes)
    for bit in range(dim):
        reversed_codes = reversed_codes * 2 + ((codes >> bit) & 1)
    return reversed_codes


def split_bits(codes: Tensor, widths: Sequence[int]) -> Tensor:
    """Cut codes into sub-tokens of `widths` bits: (...) integers in [0, 2^sum) -> (..., len(widths)) int64.

    The first sub-token holds the first dimensions. In each sub-token its first dimension is the most significant bit.
    A generator then predicts several sub-tokens of few values instead of one token of 2^D values (Luo et al., 2024,
    "Open-MAGVIT2", asymmetric token factorization; the group indices of BSQ). `join_bits` is the inverse.
    """
    codes = codes.long()
    below = [sum(widths[index + 1 :]) for index in range(len(widths))]
    parts = [(codes >> shift) & (2**width - 1) for shift, width in zip(below, widths, strict=True)]
    return torch.stack(parts, dim=-1)


def join_bits(parts: Tensor, widths: Sequence[int]) -> Tensor:
    """Invert `split_bits`: (..., len(widths)) integers, each in [0, 2^width) -> (...) int64.

    Raises ValueError when the last axis does not have one sub-token for each width.
    """
    if parts.ndim == 0 or parts.shape[-1] != len(widths):
        raise ValueError(f"sub-tokens are {tuple(parts.shape)}, expected (..., {len(widths)}), one for each width")
    codes = torch.zeros(parts.shape[:-1], dtype=torch.int64, device=parts.device)
    for part, width in zip(parts.long().unbind(dim=-1), widths, strict=True):
        codes = codes * 2**width + part
    return codes


# In latent values: below, a few milliseconds.
_signs = Kernel(_signs_flat, least_work=2**18, lengths=(0, 2))
