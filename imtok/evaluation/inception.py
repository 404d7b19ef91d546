"""Features of Inception (Szegedy et al., 2015) for FID, precision and recall.

The network and its weights are torch-fidelity's, which are those of the TensorFlow graph of the first FID (Heusel et
al., 2017); pytorch-fid and clean-fid use the same weights. They differ in how images become 299 x 299, and FID moves by
more than many papers differ (Parmar et al., 2022). So the resizing is a choice of its own:

- `tensorflow`: bilinear without antialiasing, corners as TensorFlow 1 places them. torch-fidelity's
  `inception-v3-compat`, guided-diffusion's evaluator and clean-fid's `legacy_tensorflow`.
- `pytorch`: bilinear without antialiasing, pixel centres aligned. pytorch-fid, and clean-fid's `legacy_pytorch`.
- `clean`: Pillow's bicubic on float channels, antialiased, clipped to [0, 255]. clean-fid's `clean`.
"""

# Axes: B batch, H x W image.

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imtok.devices import autocast, deterministic
from imtok.errors import ConfigError
from imtok.weights import read_weights

Resizing = Literal["tensorflow", "pytorch", "clean"]

FEATURES = 2048  # after the last average pooling
_SIDE = 299  # pixels
_REMEMBERED = 2  # reconstructions and originals


class _Known(NamedTuple):
    """A batch and its features."""

    images: Tensor
    version: int  # of the tensor, which grows where it is changed in place
    features: Tensor


class InceptionFeatures(nn.Module):
    """torch-fidelity's Inception up to its 2,048 features, with one of three ways to resize.

    `weights` is a file of the published layout. Raises ConfigError on another file, or where torch-fidelity is not
    installed.
    """

    def __init__(self, weights: Path, resizing: Resizing = "tensorflow") -> None:
        super().__init__()
        self.resizing: Resizing = resizing
        self.layers = _layers(weights)
        self.requires_grad_(False)
        self.eval()
        self._memory = threading.local()

    def forward(self, images: Tensor) -> Tensor:
        """Return features in float32: (B, 3, H, W), uint8 or floats in [-1, 1] -> (B, 2048), where the network is.

        Each thread remembers its last two batches: several metrics, and tokenizers beside each other, compare the same.
        """
        known: list[_Known] = getattr(self._memory, "known", [])
        for each in known:
            if each.images is images and each.version == images._version:
                break
        else:
            each = _Known(images, images._version, self._features(images))
        self._memory.known = [*(other for other in known if other is not each), each][-_REMEMBERED:]
        return each.features

    def _features(self, images: Tensor) -> Tensor:
        device = next(self.parameters()).device
        with torch.no_grad(), deterministic(device), autocast(device, "fp32"):
            features: Tensor = self.layers(self._resized(images, device)).flatten(1)
        return features

    def _resized(self, images: Tensor, device: torch.device) -> Tensor:
        """Return the images as the network takes them: (B, 3, 299, 299) float32 in [-1, 1]."""
        if self.resizing == "pytorch":
            values = images.to(device).float()
            unit = (values + 1) / 2 if images.is_floating_point() else values / 255
            return 2 * F.interpolate(unit, (_SIDE, _SIDE), mode="bilinear", align_corners=False) - 1
        levels = images.to(device).float()
        if images.is_floating_point():
            levels = (levels + 1) * 127.5
        resized = _by_pillow(levels) if self.resizing == "clean" else _by_tensorflow(levels)
        return (resized - 128) / 128


def _by_tensorflow(levels: Tensor) -> Tensor:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(levels, size=(_SIDE, _SIDE), align_corners=False)
    return resized


def _by_pillow(levels: Tensor) -> Tensor:
    """Resize each channel by Pillow's bicubic filter in float32, and clip to [0, 255]."""
    channels = levels.cpu().numpy().reshape(-1, *levels.shape[2:])
    resized = [
        np.asarray(Image.fromarray(each).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)).clip(0, 255)
        for each in channels
    ]
    return torch.from_numpy(np.stack(resized)).reshape(*levels.shape[:2], _SIDE, _SIDE).to(levels.device)


def _layers(path: Path) -> nn.Sequential:
    """Build torch-fidelity's layers up to the last pooling, with weights that were read without pickled code."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError("rFID, precision and recall need torch-fidelity; pip install 'imtok[eval]'") from error
    # torch-fidelity takes weights from a file alone and would run code in it, so it is handed the tensors as a file.
    file = io.BytesIO()
    torch.save(read_weights(path, URL_INCEPTION_V3), file)
    file.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # its layers draw first weights
            network = FeatureExtractorInceptionV3("features", ["2048"], feature_extractor_weights_path=file)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip().split(", ")[0]
        raise ConfigError(
            f"{path}: holds another network than Inception ({first}); name Inception's weights, as {URL_INCEPTION_V3} "
            "has them"
        ) from error
    *layers, _ = network.children()  # the last one classifies
    return nn.Sequential(*layers)
