"""Weights of VGG16's network made by the tests, as the published ones cannot be had everywhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models import vgg16


def vgg_weights(fill: Callable[[torch.Size], Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's names and shapes, without the classifier."""
    with torch.device("meta"):
        empty = vgg16(weights=None).features.state_dict()
    return {f"features.{key}": fill(value.shape) for key, value in empty.items()}
