"""Image codecs beside a tokenizer: each image as the best file that is no larger than the tokenizer's codes.

A tokenizer spends the same number of bytes on each image, and no entropy coding is counted. A codec is given that many
bytes for its whole file, and the highest quality that fits is found by bisection, image by image. Where even the lowest
quality is too large, that file is taken all the same and counted, which favours the codec.
"""

# Axes: B batch, S side of the square.

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import PIL
import torch
from PIL import Image, features
from torch import Tensor

from imtok.cores import usable_cores
from imtok.data.images import to_picture, to_tensor
from imtok.parallel import in_order

_LOWEST, _HIGHEST = 0, 100  # quality


@dataclass(frozen=True)
class Coded:
    """A batch of images that a codec has written and read back."""

    restored: Tensor  # (B, 3, S, S) uint8
    sizes: Tensor  # (B,) int64, bytes of the files


@dataclass(frozen=True)
class Codec:
    """A lossy codec of Pillow with one quality from 0 to 100."""

    name: str
    label: str
    file_format: str  # by Pillow's name
    feature: str  # of Pillow, which may have been built without
    options: Mapping[str, Any] = field(default_factory=dict)  # of Image.save, the slow and small ones

    @property
    def available(self) -> bool:
        """True where Pillow was built with this codec."""
        return bool(features.check(self.feature))

    @property
    def version(self) -> str:
        """The version of the library that encodes, which decides the bytes."""
        return f"{self.feature} {features.version(self.feature)}, Pillow {PIL.__version__}"

    def encode(self, picture: Image.Image, quality: int) -> bytes:
        """Return the file of a picture in a quality from 0 to 100."""
        file = io.BytesIO()
        picture.save(file, self.file_format, quality=quality, **self.options)
        return file.getvalue()

    def best_file(self, picture: Image.Image, allowed: float) -> bytes:
        """Return the file of the highest quality that has at most `allowed` bytes, or of the lowest quality.

        Files are taken to grow with the quality; where one does not, a smaller quality than possible may be found.
        """
        low, high, best = _LOWEST, _HIGHEST, self.encode(picture, _LOWEST)
        while low < high:
            middle = (low + high + 1) // 2
            file = self.encode(picture, middle)
            if len(file) <= allowed:
                low, best = middle, file
            else:
                high = middle - 1
        return best

    def restore(self, originals: Tensor, allowed: float) -> Coded:
        """Write and read back images (B, 3, S, S) uint8, each in at most `allowed` bytes where that can be.

        The images are coded beside each other on all cores.
        """
        files = list(
            in_order(
                lambda number: self.best_file(to_picture(originals[number]), allowed),
                range(len(originals)),
                workers=usable_cores(),
                ahead=2 * usable_cores(),
                one_core=False,  # Pillow computes, not torch
            )
        )
        restored = [to_tensor(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        return Coded(torch.stack(restored), torch.tensor([len(file) for file in files]))


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        codec.name: codec
        for codec in (
            Codec("webp", "WebP", "WEBP", "webp", {"method": 6}),
            Codec("jpeg", "JPEG", "JPEG", "jpg", {"optimize": True, "progressive": True}),
            Codec("avif", "AVIF", "AVIF", "avif", {"speed": 4, "max_threads": 1}),
        )
    }
)


def available_codecs() -> list[Codec]:
    """List the codecs that Pillow was built with."""
    return [codec for codec in CODECS.values() if codec.available]


def missing_codecs() -> list[str]:
    """List the labels of the codecs that Pillow was built without."""
    return [codec.label for codec in CODECS.values() if not codec.available]


def larger(sizes: Iterable[int], allowed: float) -> int:
    """Count the files that have more than `allowed` bytes, since not even the lowest quality is smaller."""
    return sum(size > allowed for size in sizes)
