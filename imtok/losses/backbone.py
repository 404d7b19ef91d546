"""The networks whose features LPIPS compares: VGG16 and AlexNet as torchvision has them, cut after their last level.

Their weights are those that torchvision publishes; the linear heads come in torchmetrics' package.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from imtok.errors import ConfigError
from imtok.weights import PublishedWeights, fetched, read_weights, require_shapes


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision and the layers of it that end LPIPS's levels."""

    title: str
    model: str  # torchvision's function that builds it
    weights: str  # torchvision's enumeration of its weights
    level_ends: tuple[int, ...]  # in torchvision's count of `features`
    smallest: int  # pixels a side of which the last level has one left
    heads: str  # torchmetrics' file of the linear heads

    @property
    def published(self) -> PublishedWeights:
        """The published file of its weights."""
        return PublishedWeights(f"{self.title}'s weights", published_url(self.weights))

    def read(self, path: Path) -> dict[str, Tensor]:
        """Read the convolutions' weights and biases by torchvision's names, without the leading `features.`.

        The file is a state dict of the network as .pth or .safetensors, with or without the classifier. Raises
        ConfigError on another file.
        """
        url, start = self.published.url, "features."
        found = {
            key.removeprefix(start): value for key, value in read_weights(path, url).items() if key.startswith(start)
        }
        expected = self.empty_features().state_dict()
        require_shapes(path, found, expected, network=self.title, url=url, prefix=start)
        return found

    def features(self, weights: dict[str, Tensor]) -> nn.Sequential:
        """Build the layers up to the last level of features, with these weights in float32."""
        features = self.empty_features().to_empty(device="cpu")
        features.load_state_dict(weights)
        return features[: self.level_ends[-1] + 1]

    def empty_features(self) -> nn.Sequential:
        """Build the convolutional half on the meta device: no memory, no random numbers."""
        from torchvision import models

        with torch.device("meta"):
            features: nn.Sequential = getattr(models, self.model)(weights=None).features
        return features

    def read_heads(self) -> list[Tensor]:
        """Read the published linear heads, (1, C, 1, 1) each, float32, which come with torchmetrics."""
        file = resources.files("torchmetrics.functional.image") / "lpips_models" / self.heads
        try:
            with resources.as_file(file) as path:
                state = torch.load(path, map_location="cpu", weights_only=True)
            return [state[f"lin{level}.model.1.weight"].float() for level in range(len(self.level_ends))]
        except (OSError, KeyError) as error:
            raise ConfigError(
                f"{file}: torchmetrics here is without the heads of LPIPS; install torchmetrics 1.9, or train on "
                "pixels alone by --set loss.perceptual=0"
            ) from error


VGG16 = Backbone("VGG16", "vgg16", "VGG16_Weights", (3, 8, 15, 22, 29), 16, "vgg.pth")  # relu1_2 to relu5_3
ALEXNET = Backbone("AlexNet", "alexnet", "AlexNet_Weights", (1, 4, 7, 9, 11), 31, "alex.pth")  # relu1 to relu5


def find_vgg_weights(path: Path | None) -> Path:
    """Find the file of VGG16's weights: the one named, or the one in torch's cache, fetched where it is not there.

    The file is read, to see that it is whole and of this network. Raises ConfigError on another file or none, DiskError
    where the disk has no room for it.
    """
    found = located(path)
    VGG16.read(found)
    return found


def located(path: Path | None) -> Path:
    """Return the file of VGG16's weights that the perceptual loss reads, without reading it."""
    if path is None:
        return fetched(
            VGG16.published,
            needed_by="the perceptual loss needs",
            remedy="put that file there, name it by --set loss.perceptual_weights=PATH, or train on pixels alone by "
            "--set loss.perceptual=0",
        )
    if not path.is_file():
        url = VGG16.published.url
        raise ConfigError(f"{path}: no such file; loss.perceptual_weights names VGG16's weights, as {url} has them")
    return path


def cached_vgg_weights() -> Path:
    """Return the place of VGG16's weights in torch's cache, whether they are there or not."""
    return VGG16.published.cached


def published_url(enumeration: str) -> str:
    """Return the address of the weights that torchvision names first in an enumeration."""
    from torchvision import models  # half a second that training without this loss need not wait

    return str(getattr(models, enumeration).IMAGENET1K_V1.url)
