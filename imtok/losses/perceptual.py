"""LPIPS (Zhang et al., 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric") on VGG16.

The network is torchvision's, its weights are those torchvision publishes, and the linear heads are the ones that come
in torchmetrics' package. The arithmetic between them is written here, since torchmetrics' own classes are no public
names, draw 138 million random numbers from the generator a run resumes from, and hold VGG16's classifier, nine tenths
of it, in memory. The values are theirs, with the same 1e-8 inside the root of the norm: with eps outside, as first
published, features that are all zero have a gradient of NaN, from which the ReLU before them alone saves. There is no
dropout before the heads, which VQ-GAN's code leaves active while it trains.
"""

# Axes: B batch, H x W image, C channels and h x w grid of a level of features.

from __future__ import annotations

import http.client
import socket
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imtok.errors import ConfigError, disk_errors
from imtok.losses.base import LossTerm

_LEVEL_ENDS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 in torchvision's count
_SMALLEST = 16  # pixels a side of which relu5_3 has one left
_RANGE_SLACK = 0.01  # resampling and rounding go over by less
_TIMEOUT = 10.0  # seconds without an answer after which a fetch is given up


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
    """Images in [-1, 1] to the scale VGG16 was trained on: ImageNet's mean 0 and deviation 1 in each channel."""

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

    `weights` names a file of VGG16's weights; without it `find_vgg_weights` looks for them and fetches them at last.
    Raises ConfigError where there are none. No parameter is ever trained, and `train()` leaves the module in evaluation
    mode. The network computes in the precision of its caller's autocast, distances in float32.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.scaling = ImageNetScaling()
        self.features = _vgg_features(_read_weights(_locate(weights)))
        self.heads = nn.ParameterList(_read_heads())
        self.requires_grad_(False)
        self.eval()
        self._range_checked = False

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Return a float32 scalar; both inputs are (B, 3, H, W), 16 pixels a side or more, with values in [-1, 1].

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
            if number in _LEVEL_ENDS:
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
        if min(height, width) < _SMALLEST:
            raise ValueError(
                f"images are {height} x {width} pixels, and LPIPS needs {_SMALLEST} a side; "
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


def find_vgg_weights(path: Path | None) -> Path:
    """Find the file of VGG16's weights: the one named, or the one in torch's cache, fetched where it is not there.

    The file is a state dict of torchvision's `vgg16` as .pth or .safetensors, with or without the classifier. It is
    read, to see that it is whole and of this network. Raises ConfigError on another file or none, DiskError where the
    disk has no room for it.
    """
    found = _locate(path)
    _read_weights(found)
    return found


def _locate(path: Path | None) -> Path:
    if path is None:
        return _fetched()
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; loss.perceptual_weights names VGG16's weights, as {_vgg_url()} has them"
        )
    return path


def _fetched() -> Path:
    """Return the file in torch's cache, where torchvision keeps it too; fetch it where it is absent."""
    url, file = _vgg_url(), cached_vgg_weights()
    if file.is_file():
        return file
    try:
        with disk_errors(file), _socket_timeout(_TIMEOUT):
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), file.stem.split("-")[-1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # RuntimeError: the hash is another
        raise ConfigError(
            f"{file}: VGG16's weights, which the perceptual loss needs, are not there and cannot be fetched from {url} "
            f"({_reason(error)}); put that file there, name it by --set loss.perceptual_weights=PATH, or train on "
            "pixels alone by --set loss.perceptual=0"
        ) from error
    return file


def cached_vgg_weights() -> Path:
    """Return the place of VGG16's weights in torch's cache, whether they are there or not."""
    name = Path(urlparse(_vgg_url()).path).name  # vgg16-397923af.pth: what its SHA-256 begins with
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _vgg_url() -> str:
    from torchvision.models import VGG16_Weights  # half a second that training without this loss need not wait

    return str(VGG16_Weights.IMAGENET1K_V1.url)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for the block: torch's download sets none, and waits for ever where packets are dropped."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """Give the reason of an error in one line: the text of an OSError, also of one that urllib has wrapped."""
    cause = getattr(error, "reason", error)
    return " ".join(str(getattr(cause, "strerror", None) or cause).split())


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read the convolutions' weights and biases by torchvision's names, without the leading `features.`."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            mapped = zipfile.is_zipfile(path)  # files from before torch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        weights = {key.removeprefix("features."): state[key] for key in state if key.startswith("features.")}
        found = {key: tuple(value.shape) for key, value in weights.items()}
    except Exception as error:  # a damaged pickle can end in any
        raise ConfigError(f"{path}: cannot be read as weights; put {_vgg_url()} in its place") from error
    expected = {key: tuple(value.shape) for key, value in _empty_features().state_dict().items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        raise ConfigError(
            f"{path}: holds another network than VGG16, features.{wrong[0]} is {_form(found, wrong[0])}, expected "
            f"{_form(expected, wrong[0])}; name VGG16's, as {_vgg_url()} has it"
        )
    return weights


def _form(shapes: dict[str, tuple[int, ...]], key: str) -> str:
    return " x ".join(map(str, shapes[key])) if key in shapes else "absent"


def _vgg_features(weights: dict[str, Tensor]) -> nn.Sequential:
    """Build VGG16's layers up to the last level of features, with these weights in float32."""
    features = _empty_features().to_empty(device="cpu")
    features.load_state_dict(weights)
    return features[: _LEVEL_ENDS[-1] + 1]


def _empty_features() -> nn.Sequential:
    """Build VGG16's convolutional half on the meta device: no memory, no random numbers."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        features: nn.Sequential = vgg16(weights=None).features
    return features


def _read_heads() -> list[Tensor]:
    """Read the published linear heads, (1, C, 1, 1) each, float32, which come with torchmetrics."""
    file = resources.files("torchmetrics.functional.image") / "lpips_models" / "vgg.pth"
    try:
        with resources.as_file(file) as path:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return [state[f"lin{level}.model.1.weight"].float() for level in range(len(_LEVEL_ENDS))]
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"{file}: torchmetrics here is without the heads of LPIPS; install torchmetrics 1.9, or train on pixels "
            "alone by --set loss.perceptual=0"
        ) from error
