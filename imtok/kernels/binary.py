"""Signs, the codes that number them, and the entropies of their soft choice, for LFQ and BSQ.

A code is the number whose bits are the signs, + being 1; dimension 0 is the MOST significant bit, as in
vector-quantize-pytorch and bsq-vit. Yu et al. (2023, equation 4) and Open-MAGVIT2 have it least significant:
`reverse_bits` goes between the two.

The soft choice among all 2^D sign vectors c is softmax(-|z - c|^2 / T) = softmax(2 z.c / T). The exponent is a sum
over dimensions, so the dimensions choose independently: + with probability sigmoid(4 s z / T), where s is the
magnitude of a sign (Zhao et al., 2024). No table of 2^D codes is needed.
"""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, g dimensions in each of G = D/g groups.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from imtok.kernels.compiling import Kernel

# A sigmoid is 0 or 1 well before, even in float64; infinite logits would turn 0 * inf into NaN.
_LARGEST_LOGIT = 1000.0
# The gradient of z / |z| is g / |z|: a latent shorter than this would outweigh the rest of its batch.
_LEAST_LENGTH = 1e-6


class SignEntropies(NamedTuple):
    """The two terms of an entropy loss: scalars, in nats."""

    sample: Tensor  # mean entropy of a latent's own choice, in [0, D log 2]: low when choices are sure
    batch: Tensor  # entropy of the mean choice, in [0, D log 2]: high when all codes are used


def sign_codes(latents: Tensor, magnitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """Signs and their codes: (B, D, H, W) float -> the same shape of +-magnitude, (B, H, W) int64 in [0, 2^D).

    Above zero is +, all else -, zero and minus zero too. The gradient passes straight through. A position with a NaN
    or infinite latent has the code -1.
    """
    values, codes = _Signs.apply(latents, magnitude)
    # Shaped out here: what a Function makes a view, its caller could not change in place.
    return values.view(latents.shape), codes.view(latents.shape[0], *latents.shape[2:])


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
        ctx.shape = latents.shape
        flat = latents.contiguous().flatten(2)
        family = (latents.device.type, latents.dtype, *flat.shape[1:], magnitude)
        values, codes = _signs(flat, magnitude, family=family, work=latents.numel())
        ctx.mark_non_differentiable(codes)
        return values, codes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].view(ctx.shape), None


def _signs_flat(latents: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
    """(B, D, S) -> values (B, D, S), codes (B, S); dimensions are written out, so that each is read once."""
    values = []
    codes = torch.zeros_like(latents[:, 0], dtype=torch.int32)  # vectorised, where int64 is not; D is at most 31
    not_finite = torch.zeros_like(latents[:, 0])
    for dimension in range(latents.shape[1]):
        column = latents[:, dimension]  # (B, S)
        positive = column > 0
        values.append(torch.where(positive, magnitude, -magnitude).to(latents.dtype))
        codes = codes * 2 + positive.to(torch.int32)
        not_finite = not_finite + column * 0  # NaN then, else zero
    return torch.stack(values, dim=1), torch.where(not_finite == 0, codes, -1).long()


def codes_to_signs(codes: Tensor, dim: int) -> Tensor:
    """The inverse of `sign_codes`: (B, H, W) integers in [0, 2^D) -> (B, D, H, W) float32 of -1 or 1."""
    shifts = torch.arange(dim - 1, -1, -1, device=codes.device).view(-1, 1, 1)
    bits = (codes.long().unsqueeze(1) >> shifts) & 1
    return (bits * 2 - 1).float()


def reverse_bits(codes: Tensor, dim: int) -> Tensor:
    """(...) integers in [0, 2^dim) -> (...) int64 with the order of their `dim` bits reversed; its own inverse."""
    codes = codes.long()
    reversed_codes = torch.zeros_like(codes)
    for bit in range(dim):
        reversed_codes = reversed_codes * 2 + ((codes >> bit) & 1)
    return reversed_codes


def split_codes(codes: Tensor, widths: Sequence[int]) -> Tensor:
    """Codes cut into sub-tokens of `widths` bits: (...) integers in [0, 2^sum) -> (..., len(widths)) int64.

    The first sub-token holds the first dimensions, each its own first dimension as most significant bit. A
    generator predicts some sub-tokens of few values instead of one token of 2^D (Luo et al., 2024, "Open-MAGVIT2",
    asymmetric token factorization; the group indices of BSQ). `join_codes` is the inverse.
    """
    codes = codes.long()
    below = [sum(widths[index + 1 :]) for index in range(len(widths))]
    parts = [(codes >> shift) & (2**width - 1) for shift, width in zip(below, widths, strict=True)]
    return torch.stack(parts, dim=-1)


def join_codes(parts: Tensor, widths: Sequence[int]) -> Tensor:
    """The inverse of `split_codes`: (..., len(widths)) integers, each in [0, 2^width) -> (...) int64.

    Raises ValueError when the last axis does not have one sub-token for each width.
    """
    if parts.ndim == 0 or parts.shape[-1] != len(widths):
        raise ValueError(f"sub-tokens are {tuple(parts.shape)}, expected (..., {len(widths)}), one for each width")
    codes = torch.zeros(parts.shape[:-1], dtype=torch.int64, device=parts.device)
    for part, width in zip(parts.long().unbind(dim=-1), widths, strict=True):
        codes = codes * 2**width + part
    return codes


def to_sphere(latents: Tensor) -> Tensor:
    """z / |z| over axis 1: (B, D, H, W) -> (B, D, H, W).

    A latent no longer than 1e-6 has no direction worth the name: it stays as it is and so does its gradient, which
    is therefore at most 1e6 times what comes in, and finite at zero. It can be differentiated once.
    """
    points: Tensor = _Sphere.apply(latents)
    return points.view(latents.shape)


class _Sphere(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor) -> Tensor:
        ctx.save_for_backward(latents)
        flat = latents.contiguous().flatten(2)
        family = (latents.device.type, latents.dtype, *flat.shape[1:])
        points: Tensor = _points(flat, family=family, work=latents.numel())
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (latents,) = ctx.saved_tensors
        flat = latents.contiguous().flatten(2)
        family = (latents.device.type, latents.dtype, *flat.shape[1:])
        turned: Tensor = _points_gradient(flat, grads[0].contiguous(), family=family, work=latents.numel())
        return turned.view(latents.shape)


def _points_flat(latents: Tensor) -> Tensor:
    length = _length(latents)
    return torch.where(length <= _LEAST_LENGTH, latents, latents / length)


def _points_gradient_flat(latents: Tensor, grad: Tensor) -> Tensor:
    """(g - u (u.g)) / |z| with u = z / |z|: twice (B, D, S) -> (B, D, S)."""
    length = _length(latents)  # (B, 1, S)
    points = latents / length
    along = (points * grad).sum(dim=1, keepdim=True)
    return torch.where(length <= _LEAST_LENGTH, grad, (grad - points * along) / length)


def _length(latents: Tensor) -> Tensor:
    """|z| over axis 1, in units of its largest value so that no square overflows: (B, D, S) -> (B, 1, S)."""
    largest = latents.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(latents.dtype).tiny)
    return (latents / largest).square().sum(dim=1, keepdim=True).sqrt() * largest


# In latent values: below, a few milliseconds.
_signs = Kernel(_signs_flat, least_work=2**20)
_points = Kernel(_points_flat, least_work=2**20)
_points_gradient = Kernel(_points_gradient_flat, least_work=2**20)


def sign_entropies(points: Tensor, magnitude: float, temperature: float, group: int = 1) -> SignEntropies:
    """Both entropies of the soft choice among the 2^D codes of +-magnitude: (B, D, H, W) float -> two scalars.

    `sample` is exact: a sum of Bernoulli entropies over dimensions. `batch` takes groups of `group` neighbouring
    dimensions as independent of each other and is exact inside a group: 1 is BSQ's analytic form (Zhao et al.,
    2024), D the entropy over the whole codebook (Yu et al., 2023, equation 5). Entropies of parts add
    up to no less than that of the whole, so `batch` is the higher the smaller the groups. Both are zero where there
    are no points. Gradients are finite however low the temperature is.
    """
    count = max(points.numel() // points.shape[1], 1)
    logits = (points * (4 * magnitude / temperature)).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    size = logits.abs()
    # For p = sigmoid(x) the entropy is log(1 + e^-|x|) + |x| sigmoid(-|x|): even in x, no log of a small number.
    sample = (F.softplus(-size) + size * torch.sigmoid(-size)).sum() / count
    chances = _mean_of_signs(logits, count) if group == 1 else _mean_of_groups(logits, count, group)
    least = torch.finfo(chances.dtype).tiny
    return SignEntropies(sample, -(chances * chances.clamp(min=least).log()).sum())


def _mean_of_signs(logits: Tensor, count: int) -> Tensor:
    """Mean chance of - and of + in each dimension: (B, D, H, W) -> (D, 2)."""
    # Each from its own sigmoid: 1 - p would lose a chance below 6e-8.
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    return torch.stack([minus.sum(dim=(0, 2, 3)), plus.sum(dim=(0, 2, 3))], dim=1) / count


def _mean_of_groups(logits: Tensor, count: int, group: int) -> Tensor:
    """Mean chance of each of the 2^g codes of each group: (B, D, H, W) -> (G, 2^g).

    The chance of a code is the product of those of its two halves, so the mean over vectors is a matrix product of
    the halves: N x 2^(g/2) numbers are held where the chances of all codes would be N x 2^g.
    """
    grouped = logits.transpose(0, 1).reshape(-1, group, count)  # (G, g, N)
    first, second = _chances(grouped[:, : group // 2]), _chances(grouped[:, group // 2 :])
    means = first @ second.transpose(1, 2) / count  # (G, 2^(g/2), 2^(g - g/2))
    return means.flatten(1)


def _chances(logits: Tensor) -> Tensor:
    """Chance of each sign vector, in the order of their codes: (G, g, N) -> (G, 2^g, N)."""
    minus, plus = torch.sigmoid(-logits), torch.sigmoid(logits)
    chances = torch.ones_like(logits[:, :1])
    for dimension in range(logits.shape[1]):
        one = slice(dimension, dimension + 1)
        chances = torch.stack([chances * minus[:, one], chances * plus[:, one]], dim=2).flatten(1, 2)
    return chances
