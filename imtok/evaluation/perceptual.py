"""LPIPS as a metric (Zhang et al., 2018), on the network of the perceptual loss."""

# Axes: B batch, N images, S side of the square.

from __future__ import annotations

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
    needs = "perceptual"

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
