"""LPIPS as a metric (Zhang et al., 2018), on the network of the perceptual loss."""

# Axes: B batch, S side of the square.

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from imtok.evaluation.metric import Metric

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from torch import Tensor, nn


class LPIPS(Metric):
    """Perceptual distance on VGG16's features, the mean over images."""

    name, label, higher_is_better = "lpips", "LPIPS", False
    description = "perceptual distance on VGG16's features, mean over images (Zhang et al., 2018)"
    method = "VGG16, mean over images"
    smallest = 16
    needs = "perceptual"

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__(network)
        self.total, self.images = 0.0, 0

    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add a batch; it is computed where the network is."""
        import torch

        from imtok.tokenizer import to_float

        assert self.network is not None
        device = next(self.network.parameters()).device
        pair = (to_float(each.to(device)) for each in (restored, originals))
        with torch.no_grad():
            self.total += float(self.network(*pair)) * len(originals)
        self.images += len(originals)

    def compute(self) -> float:
        """Return the mean over images."""
        return self.total / self.images

    def merge(self, other: Self) -> None:
        """Add the distances of other images."""
        self.total += other.total
        self.images += other.images

    @classmethod
    def unavailable(cls) -> str:
        """Name the file of VGG16's weights where it is absent; nothing is fetched."""
        from imtok.losses import cached_vgg_weights

        file = cached_vgg_weights()
        return "" if file.is_file() else f"{file}: no such file; put VGG16's weights there, as torchvision has them"

    @classmethod
    def open_network(cls) -> nn.Module:
        """Open VGG16 with the weights in torch's cache, which are fetched where they are absent."""
        from imtok.losses import PerceptualLoss

        return PerceptualLoss()
