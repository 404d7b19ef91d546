"""Vectors to the unit sphere, with a gradient that stays bounded at the origin.

The true gradient of z / |z| grows as 1 / |z|. Peers clamp the length at 1e-12, so a zero vector multiplies the incoming
gradient by 1e12; after clipping, nothing else would learn in that step. Here a vector no longer than 1e-4 receives the
gradient unchanged, so the factor is at most 1e4.
"""

# Axes: N vectors, D dimensions, always axis 1; B batch, H x W grid; S grid positions, S = H*W.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from imtok.kernels.compiling import Kernel

SHORTEST = 1e-4


def unit_rows(rows: Tensor) -> Tensor:
    """Scale each row to length 1, a zero row to zero: (N, D) float -> (N, D), same dtype; differentiable once."""
    units: Tensor = _Rows.apply(rows)
    return units


def to_sphere(latents: Tensor) -> Tensor:
    """Scale axis 1 of a grid to length 1: (B, D, H, W) float -> the same shape, in one compiled pass each way."""
    points: Tensor = _Grid.apply(latents)
    return points.view(latents.shape)


def directions(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors scaled to length 1 over axis 1, and their lengths: (N, D, ...) -> (N, D, ...), (N, 1, ...).

    Each vector is first divided by its largest value, so that no square overflows or vanishes. A length beyond the
    largest number of the dtype becomes that number.
    """
    limits = torch.finfo(vectors.dtype)
    largest = vectors.abs().amax(dim=1, keepdim=True).clamp(min=limits.tiny)
    scaled = vectors / largest
    size = scaled.square().sum(dim=1, keepdim=True).sqrt()  # in [1, sqrt(D)]; less below the smallest normal number
    return scaled / size.clamp(min=limits.tiny), (size * largest).clamp(max=limits.max)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        # Not compiled: a code is searched for these, and must not depend on how many rows there are.
        return _units(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        return _units_gradient(rows, grads[0])


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor) -> Tensor:
        ctx.save_for_backward(latents)
        flat = latents.contiguous().flatten(2)  # (B, D, S)
        family = (latents.device.type, latents.dtype, flat.shape[1])
        points: Tensor = _points(flat, family=family, work=latents.numel())
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (latents,) = ctx.saved_tensors
        flat, grad = latents.contiguous().flatten(2), grads[0].contiguous()
        family = (latents.device.type, latents.dtype, flat.shape[1])
        turned: Tensor = _points_gradient(flat, grad.flatten(2), family=family, work=latents.numel())
        return turned.view(latents.shape)


def _units(vectors: Tensor) -> Tensor:
    return directions(vectors)[0]


def _units_gradient(vectors: Tensor, grad: Tensor) -> Tensor:
    """Return (g - u (u.g)) / |z| with u = z / |z|, and g where z is short: two (N, D, ...) -> (N, D, ...)."""
    units, length = directions(vectors)
    along = (units * grad).sum(dim=1, keepdim=True)
    return torch.where(length <= SHORTEST, grad, (grad - units * along) / length)


# In latent values: below, a few milliseconds.
_points = Kernel(_units, least_work=2**18, lengths=(0, 2))
_points_gradient = Kernel(_units_gradient, least_work=2**18, lengths=(0, 2))
