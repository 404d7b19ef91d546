"""Tensors that no cast makes narrower than float32: codebooks, counts and averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def keeping_float32(cast: Callable[..., Any]) -> Callable[..., Any]:
    """Return the cast of `nn.Module._apply` without its narrowing: a tensor of float32 or more stays at least float32.

    A count in bfloat16 stops at 256, and an average that moves by a thousandth does not move at all.
    """

    def keep(tensor: Tensor) -> Tensor:
        found: Tensor = cast(tensor)
        narrow = is_narrow(found) and tensor.dtype.itemsize >= 4
        return tensor.to(found.device) if narrow else found

    return keep


def is_narrow(tensor: Tensor) -> bool:
    """Return whether a tensor is of a floating type below float32."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in its own dtype or float32, whichever is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
