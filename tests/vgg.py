"""Weights of VGG16's network made by the tests, as the published ones cannot be had everywhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import vgg16


def empty_features() -> nn.Sequential:
    """VGG16's convolutions as torchvision numbers them, on the meta device: shapes without numbers."""
    with torch.device("meta"):
        return vgg16(weights=None).features


def vgg_weights(fill: Callable[[torch.Size], Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's names and shapes, without the classifier."""
    return {f"features.{key}": fill(value.shape) for key, value in empty_features().state_dict().items()}
