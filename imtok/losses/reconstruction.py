"""Reconstruction losses, each a mean over all values of images in [-1, 1]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def reconstruction_losses(reconstructions: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Unweighted scalars by name: `l1` mean |x' - x|, `l2` mean (x' - x)^2; both inputs (B, 3, H, W) in [-1, 1]."""
    reconstructions = reconstructions.float()
    return {"l1": F.l1_loss(reconstructions, images), "l2": F.mse_loss(reconstructions, images)}
