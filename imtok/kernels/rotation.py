"""The rotation trick (Fifty et al., 2024, "Restructuring Vector Quantization with the Rotation Trick").

The code q is written as s R e, where R is the rotation in the plane of e and q that turns e towards q and
s = |q| / |e|. Both are constants of the step, so the gradient at q reaches e as s R^T g: it keeps its angle to
the vector it belongs to, where the straight-through estimator copies it unturned.

With u = e/|e|, v = q/|q|, w = (u + v)/|u + v| (section 4.2, equation 4; Householder form):
R = I - 2 w w^T + 2 v u^T. The d x d matrix is never formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotate_to(latents: Tensor, targets: Tensor) -> Tensor:
    """Targets in the forward pass, rotated gradient in the backward pass: (N, D), (N, D) -> (N, D).

    The value is `targets` to the last bit. The gradient to `latents` is s (g - 2 (g.w) w + 2 (g.v) u); none
    reaches `targets`. Where the formula has no value the gradient stays finite: exactly opposite vectors are
    reflected (w = 0), and a zero latent, which has no direction, takes the gradient as it is.

    Raises ValueError on shapes that are not (N, D), twice the same.
    """
    if latents.ndim != 2 or latents.shape != targets.shape:
        raise ValueError(f"latents {tuple(latents.shape)} and targets {tuple(targets.shape)} must both be (N, D)")
    rotated: Tensor = _Rotation.apply(latents, targets)
    return rotated


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latents: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(latents, targets)
        return targets.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        latents, targets = ctx.saved_tensors
        (grad,) = grads
        return rotation_gradient(latents, targets, grad), None


def rotation_gradient(latents: Tensor, targets: Tensor, grad: Tensor) -> Tensor:
    """s R^T g for the rotation that turns each latent to its target: three times (N, D) -> (N, D)."""
    length = latents.norm(dim=1, keepdim=True)  # (N, 1)
    target_length = targets.norm(dim=1, keepdim=True)
    u = _divide(latents, length)
    v = _divide(targets, target_length)
    w = u + v
    w = _divide(w, w.norm(dim=1, keepdim=True))
    turned = grad - 2 * (grad * w).sum(dim=1, keepdim=True) * w + 2 * (grad * v).sum(dim=1, keepdim=True) * u
    return torch.where(length > 0, _divide(target_length, length) * turned, grad)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and zero where the denominator is zero."""
    return torch.where(
        denominator > 0, numerator / torch.where(denominator > 0, denominator, 1), torch.zeros_like(numerator)
    )
