"""Reconstruction losses on pixels, each a mean over all values of images in [-1, 1]."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from imtok.losses.base import LossTerm


class L1Term(LossTerm):
    """Mean |x' - x|."""

    name: ClassVar[str] = "l1"

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        """Return the loss of `output` (B, 3, H, W), a float32 scalar."""
        return F.l1_loss(output.float(), images)


class L2Term(LossTerm):
    """Mean (x' - x)^2."""

    name: ClassVar[str] = "l2"

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        """Return the loss of `output` (B, 3, H, W), a float32 scalar."""
        return F.mse_loss(output.float(), images)
