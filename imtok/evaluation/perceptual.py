"""LPIPS as a metric (Zhang et al., 2018), on VGG16 as the perceptual loss has it, and on AlexNet."""

# Axes: B batch, N images, S side of the square.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from imtok.evaluation.metric import ImageMean

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from torch import Tensor, nn

    from imtok.losses import PerceptualLoss


class LPIPS(ImageMean):
    """Perceptual distance on VGG16's features, the mean over images.

    The mean of each batch is taken in float32, as the perceptual loss takes it, and these are summed in float64. The
    sum of a batch stands in the row of its first image, and 0 in the others.
    """

    name, label, higher_is_better = "lpips", "LPIPS", False
    description = "perceptual distance on VGG16's features, mean over images (Zhang et al., 2018)"
    method = "VGG16, mean over images"
    smallest = 16
    needs, weights = "perceptual", "vgg16"

    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return the distance of each pair, (B,) float32 where the network is."""
        import torch

        from imtok.tokenizer import to_float

        network = cast("PerceptualLoss", self.network)
        device = next(network.parameters()).device
        pair = (to_float(each) if each.dtype == torch.uint8 else each for each in (restored, originals))
        with torch.no_grad():
            return network.distances(*(each.to(device) for each in pair))

    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add a batch; it is computed where the network is."""
        import torch

        distances = self.of_images(restored, originals)
        sums = torch.zeros(len(distances), dtype=torch.float64)
        sums[:1] = float(distances.mean()) * len(distances)
        self.add_rows(values=distances.double(), sums=sums)

    def compute(self) -> float:
        """Return the mean over images."""
        total = 0.0
        for row in self.rows("sums").tolist():  # sum() rounds otherwise from Python 3.12 on
            total += row
        return total / self.images

    @classmethod
    def open_network(cls, weights: Path | None = None) -> nn.Module:
        """Open VGG16 with these weights, or with those in torch's cache, which are fetched where they are absent."""
        from imtok.losses import PerceptualLoss

        return PerceptualLoss(weights)


class AlexLPIPS(LPIPS):
    """Perceptual distance on AlexNet's features, the mean over images."""

    name, label = "lpips_alex", "LPIPS (AlexNet)"
    description = "perceptual distance on AlexNet's features, mean over images (Zhang et al., 2018)"
    method = "AlexNet, mean over images"
    smallest = 31
    needs, weights = "alexnet", "alexnet"
    by_default = False

    @classmethod
    def open_network(cls, weights: Path | None = None) -> nn.Module:
        """Open AlexNet with these weights, or with those in torch's cache, which are fetched where they are absent."""
        from imtok.evaluation.weights import find_weights
        from imtok.losses.backbone import ALEXNET
        from imtok.losses.perceptual import PerceptualLoss

        return PerceptualLoss(weights or find_weights(cls.weights, {}, needed_by=cls.label).path, ALEXNET)
