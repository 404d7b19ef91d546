"""The rotation trick (Fifty et al., 2024, "Restructuring Vector Quantization with the Rotation Trick").

The code q is written as s R e, where R is the rotation in the plane of e and q that turns e towards q and
s = |q| / |e|. Both are constants of the step, so the gradient at q reaches e as s R^T g. It keeps its angle to its
vector, while the straight-through estimator copies it without rotation.

With u = e/|e|, v = q/|q|, w = (u + v)/|u + v| (section 4.2, equation 4; Householder form):
R = I - 2 w w^T + 2 v u^T. The d x d matrix is never formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from imtok.kernels.compiling import Kernel
from imtok.kernels.sphere import SHORTEST, directions


def rotate_to(latents: Tensor, targets: Tensor) -> Tensor:
    """Return the targets, and rotate the gradient in the backward pass: (N, D), (N, D) -> (N, D).

    The value equals `targets` bit for bit. The gradient to `latents` is s (g - 2 (g.w) w + 2 (g.v) u); `targets`
    receives none. The gradient is always finite: exactly opposite vectors are reflected (w = 0). s has no bound as the
    latent shrinks, so a latent no longer than 1e-4 times its target receives the gradient unchanged, as in `unit_rows`.
    The gradient grows at most by 1e4. It can be taken once.

    Raises ValueError on shapes that are not (N, D) or not equal.
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
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        latents, targets = ctx.saved_tensors
        return rotation_gradient(latents, targets, grads[0]), None


def rotation_gradient(latents: Tensor, targets: Tensor, grad: Tensor) -> Tensor:
    """Return s R^T g for the rotation that turns each latent to its target: three (N, D) -> (N, D)."""
    dtype = torch.promote_types(latents.dtype, torch.float32)  # squares would overflow float16
    rows = [tensor.to(dtype).contiguous() for tensor in (latents, targets, grad)]
    turned: Tensor = _gradient(*rows, family=(latents.device.type, dtype, latents.shape[1]), work=grad.numel())
    return turned.to(latents.dtype)


def _rotation_gradient(latents: Tensor, targets: Tensor, grad: Tensor) -> Tensor:
    """Rotate float rows back; compiled, each row is read from memory once, and again from the cache."""
    u, length = directions(latents)  # (N, D), (N, 1)
    v, target_length = directions(targets)
    w = u + v  # unnormalised
    square = w.square().sum(dim=1, keepdim=True)
    # The sum of opposite vectors is rounding error without a direction.
    along_w = torch.where(square > (8 * torch.finfo(grad.dtype).eps) ** 2, (grad * w).sum(dim=1, keepdim=True), 0)
    along_v = (grad * v).sum(dim=1, keepdim=True)
    turned = grad - 2 * along_w * w / torch.where(square > 0, square, 1) + 2 * along_v * u
    short = length <= SHORTEST * target_length
    return torch.where(short, grad, target_length / torch.where(short, 1, length) * turned)


# In numbers of the gradient: below, a few milliseconds.
_gradient = Kernel(_rotation_gradient, least_work=2**18)
