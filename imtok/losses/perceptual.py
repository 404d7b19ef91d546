"""LPIPS (Zhang et al., 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric").

The network is VGG16; a metric may have AlexNet. The arithmetic on its features is written here, since torchmetrics' own
classes are no public names, draw 138 million random numbers from the generator a run resumes from, and hold VGG16's
classifier, nine tenths of it, in memory. The values are theirs, with the same 1e-8 inside the root of the norm: with
eps outside, as first published, features that are all zero have a gradient of NaN, from which the ReLU before them
alone saves. There is no dropout before the heads, which VQ-GAN's code leaves active while it trains.
"""

# Axes: B batch, H x W image, C channels and h x w grid of a level of features.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from imtok.losses.backbone import VGG16, Backbone, find_vgg_weights, located
from imtok.losses.base import LossTerm

_RANGE_SLACK = 0.01  # resampling and rounding go over by less


def feature_distance(
    features_a: Sequence[Tensor], features_b: Sequence[Tensor], heads: Sequence[Tensor], eps: float = 1e-8
) -> Tensor:
    """Compute LPIPS from levels of features (B, C, h, w) and a head (1, C, 1, 1) for each: (B,) float32.

    Each level's features are scaled to unit length over channels; their squared difference, weighted by the head, is
    averaged over the grid; levels are summed (Zhang et al., 2018, eq. 1). `eps` is added under the root of the length:
    it bounds the gradient at features of length 0 by 1e4. 1e-20 stands for the 1e-10 first added outside the root,
    and gives another distance only where features are shorter than about 1e-2.
    """
    levels = zip(features_a, features_b, heads, strict=True)
    return torch.stack([_level_distance(a, b, head, eps) for a, b, head in levels]).sum(dim=0)


def _level_distance(a: Tensor, b: Tensor, head: Tensor, eps: float) -> Tensor:
    return ((_unit_length(a, eps) - _unit_length(b, eps)).square() * head).sum(dim=1).mean(dim=(1, 2))


def _unit_length(features: Tensor, eps: float) -> Tensor:
    features = features.float()
    return features / (features.square().sum(dim=1, keepdim=True) + eps).sqrt()


class ImageNetScaling(nn.Module):
    """Images in [-1, 1] to the scale networks were trained on: ImageNet's mean 0 and deviation 1 in each channel."""

    shift = (-0.030, -0.088, -0.188)  # the mean 0.485, 0.456, 0.406 of images in [0, 1], and below their deviation
    scale = (0.458, 0.448, 0.450)  # 0.229, 0.224, 0.225, both in [-1, 1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W) float32."""
        images = images.float()
        return (images - _channels(self.shift, images)) / _channels(self.scale, images)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    """Return a number for each channel, (1, C, 1, 1), filled in on the device: a copy to it would wait for it."""
    return torch.cat([like.new_full((1, 1, 1, 1), value) for value in values], dim=1)


class PerceptualLoss(nn.Module):
    """LPIPS between reconstructions and images, the mean over a batch.

    `weights` names a file of the backbone's weights; without it `find_vgg_weights` looks for those of VGG16 and fetches
    them at last. Raises ConfigError where there are none. No parameter is ever trained, and `train()` leaves the module
    in evaluation mode. The network computes in the precision of its caller's autocast, distances in float32.
    """

    def __init__(self, weights: Path | None = None, backbone: Backbone = VGG16) -> None:
        super().__init__()
        self.level_ends, self.smallest = backbone.level_ends, backbone.smallest
        self.scaling = ImageNetScaling()
        self.features = backbone.features(backbone.read(located(weights)))
        self.heads = nn.ParameterList(backbone.read_heads())
        self.requires_grad_(False)
        self.eval()
        self._range_checked = False

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Return a float32 scalar; both inputs are (B, 3, H, W) in [-1, 1], for VGG16 16 pixels a side or more.

        Reconstructions may go beyond that range, where clamped ones would have no gradient. Images may not: ValueError
        names the range found, which cannot tell images in [0, 1] from pale ones. On a GPU only the first call is
        checked, since reading a value from it would delay every step. The gradient reaches reconstructions, not images.
        """
        return self.distances(reconstructions, images).mean()

    def distances(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Return the distance of each pair, (B,) float32, of what `forward` takes."""
        self._check(reconstructions, images)
        with torch.no_grad():
            expected = self.feature_levels(images)
        return feature_distance(self.feature_levels(reconstructions), expected, list(self.heads))

    def feature_levels(self, images: Tensor) -> list[Tensor]:
        """Compute the five levels of features of images (B, 3, H, W) in [-1, 1], finest first."""
        activations, levels = self.scaling(images), []
        for number, layer in enumerate(self.features):
            activations = layer(activations)
            if number in self.level_ends:
                levels.append(activations)
        return levels

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    def _check(self, reconstructions: Tensor, images: Tensor) -> None:
        if reconstructions.shape != images.shape or images.dim() != 4 or images.shape[1] != 3:
            shapes = f"{tuple(reconstructions.shape)} and {tuple(images.shape)}"
            raise ValueError(f"reconstructions and images have shapes {shapes}, expected the same (B, 3, H, W)")
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"images are {height} x {width} pixels, and LPIPS needs {self.smallest} a side; "
                "take larger crops or leave the perceptual loss out"
            )
        if torch.compiler.is_compiling() or (self._range_checked and images.device.type != "cpu"):
            return
        low, high = images.detach().amin().item(), images.detach().amax().item()
        if not (low >= -1 - _RANGE_SLACK and high <= 1 + _RANGE_SLACK):
            raise ValueError(f"images have values in [{low:.3g}, {high:.3g}], expected [-1, 1]; scale them first")
        self._range_checked = True


class PerceptualTerm(LossTerm):
    """LPIPS as a term of the loss; `load` reads VGG16's weights, from `weights` or from torch's cache."""

    name: ClassVar[str] = "perceptual"
    autocast: ClassVar[bool] = True

    def __init__(self, weight: float, weights: Path | None = None) -> None:
        super().__init__(weight)
        self.weights = weights
        if weights is None:
            self.requirement = "VGG16's weights are taken from torch's cache, or fetched into it (528 MB) at the start"
        self._network: PerceptualLoss | None = None

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        """Return the mean LPIPS of `output` (B, 3, H, W) as a float32 scalar."""
        assert self._network is not None, "load comes before the first call"
        loss: Tensor = self._network(output, images)
        return loss

    def check(self, *, fetch: bool) -> None:
        """Read VGG16's weights to see that they are whole; without `fetch` only those of a named file."""
        if fetch or self.weights is not None:
            find_vgg_weights(self.weights)

    def load(self, device: torch.device) -> None:
        """Read VGG16's weights and bring them to the device."""
        self._network = PerceptualLoss(self.weights).to(device)

    @property
    def network(self) -> PerceptualLoss | None:
        """LPIPS, once it is loaded."""
        return self._network

    def outline(self) -> nn.Module:
        """Build VGG16's convolutions without their weights."""
        from torchvision.models import vgg16

        layers: nn.Module = vgg16(weights=None).features
        return layers.requires_grad_(False)
