"""Augmentation for encoding: several crops of a picture, each brought to the square and encoded on its own.

- `flip`: the square of `fit_image`, and the same mirrored.
- `ten-crop=R`: the crops that LlamaGen encodes (Sun et al., 2024; `autoregressive/train/extract_codes_c2i.py`). The
  picture's central square is resized to `int(S * R)`. From it come the centre and the four corners, each S x S, and the
  five mirrored. LlamaGen has R = 1.1 or 1.05. The centre comes first here, as the first crop stands for its image.
- `random-crops=K`: the crops that ml-4m encodes (Mizrahi et al., 2023; `save_vq_tokens.py`). The central square comes
  first, then K - 1 crops of a random area and shape (Szegedy et al., 2015), each mirrored with probability 1/2. They
  are a function of (seed, name of the image), so the same image has the same crops whoever encodes it.

The first crop of `flip` and `random-crops` has the pixels of `fit_image`.
"""

# Axes: A crops of a picture, S side of the square, H x W picture.

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from imtok.data.images import Fit, central_square, fit_image, shorter_to, to_tensor
from imtok.errors import ConfigError

Kind = Literal["none", "flip", "ten-crop", "random-crops"]
Crop = tuple[int, int, int, int, bool]  # top, left, height and width in pixels of the picture; mirrored

_RATIO = 1.1  # sides of LlamaGen's square to those of its crops
_LARGEST_RATIO = 4.0
_MOST_CROPS = 1000
_AREAS = (0.2, 1.0)  # shares of the picture
_SHAPES = (3 / 4, 4 / 3)  # width to height
_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """The crops that are encoded of each picture."""

    kind: Kind = "none"
    random_crops: int = 0  # K
    ratio: float = _RATIO  # of ten-crop
    seed: int = 0  # of random-crops

    @property
    def num_crops(self) -> int:
        """A: crops of a picture."""
        return {"none": 1, "flip": 2, "ten-crop": 10, "random-crops": self.random_crops}[self.kind]

    @property
    def name(self) -> str:
        """The augmentation as `parse_augmentation` takes it, with every choice made."""
        if self.kind == "ten-crop":
            return f"ten-crop={self.ratio:g}"
        return f"random-crops={self.random_crops}" if self.kind == "random-crops" else self.kind

    def check(self, size: int, fit: Fit) -> None:
        """Raise ConfigError where squares of `size` pixels cannot be cropped so."""
        if fit == "pad" and self.kind in ("ten-crop", "random-crops"):
            raise ConfigError(f"--augment {self.name}: crops pictures, and --fit pad keeps all of them; leave one out")
        if self.kind == "ten-crop" and int(size * self.ratio) <= size:
            least = math.ceil(100 * (size + 1) / size) / 100
            raise ConfigError(f"--augment {self.name}: all crops of {size} px would be the same; take ten-crop={least}")


@dataclass(frozen=True)
class Augmented:
    """The crops of a picture."""

    pixels: Tensor  # (A, 3, S, S) uint8
    crops: npt.NDArray[np.int32]  # (A, 5): `Crop`, to the nearest pixel


def parse_augmentation(text: str, seed: int = 0) -> Augmentation:
    """Read `none`, `flip`, `ten-crop[=R]` or `random-crops=K`; raises ConfigError on anything else."""
    kind, _, value = text.partition("=")
    try:
        if kind == "random-crops" and 2 <= int(value) <= _MOST_CROPS:
            return Augmentation("random-crops", random_crops=int(value), seed=seed)
        if kind == "ten-crop" and 1 < (ratio := float(value) if "=" in text else _RATIO) <= _LARGEST_RATIO:
            return Augmentation("ten-crop", ratio=float(f"{ratio:g}"))
    except ValueError:
        pass
    if text in ("none", "flip"):
        return Augmentation("flip" if text == "flip" else "none")
    raise ConfigError(
        f"--augment {text}: expected none, flip, ten-crop, ten-crop=R with 1 < R <= {_LARGEST_RATIO:g}, or "
        f"random-crops=K with 2 <= K <= {_MOST_CROPS}"
    )


def augment(picture: Image.Image, size: int, fit: Fit, augmentation: Augmentation, name: str) -> Augmented:
    """Make the crops of an RGB picture; `name` is the image's own among those of a job."""
    if augmentation.kind == "ten-crop":
        return _ten_crops(picture, size, int(size * augmentation.ratio))
    first = fit_image(picture, size, fit).pixels
    box = _box(picture, size, 0, 0, size) if fit == "crop" else (0, 0, picture.height, picture.width)
    if augmentation.kind == "none":
        return _augmented([first], [(*box, False)])
    if augmentation.kind == "flip":
        return _augmented([first, first.flip(-1)], [(*box, False), (*box, True)])
    draws = _uniform(augmentation.seed, name)
    crops = [_random_crop(picture.height, picture.width, draws) for _ in range(augmentation.random_crops - 1)]
    array = np.asarray(picture)
    return _augmented([first, *(_cropped(array, crop, size) for crop in crops)], [(*box, False), *crops])


def _augmented(pixels: list[Tensor], crops: list[Crop]) -> Augmented:
    return Augmented(torch.stack(pixels), np.array(crops, np.int32))


def _ten_crops(picture: Image.Image, size: int, larger: int) -> Augmented:
    square = to_tensor(central_square(picture, larger))  # (3, R S, R S)
    end = larger - size
    middle = round(end / 2)
    corners = [(middle, middle), (0, 0), (0, end), (end, 0), (end, end)]
    views = [square[:, top : top + size, left : left + size] for top, left in corners]
    boxes = [_box(picture, larger, top, left, size) for top, left in corners]
    mirrored = [view.flip(-1) for view in views]
    return _augmented([*views, *mirrored], [(*box, flip) for flip in (False, True) for box in boxes])


def _box(picture: Image.Image, square: int, top: int, left: int, side: int) -> tuple[int, int, int, int]:
    """Locate a square of the central square of `square` px in its picture: top, left, height, width in whole pixels."""
    width, height = picture.size
    new_width, new_height = shorter_to(width, height, square)
    down, across = height / new_height, width / new_width
    top, left = (new_height - square) // 2 + top, (new_width - square) // 2 + left
    first_row, first_column = min(round(top * down), height - 1), min(round(left * across), width - 1)
    rows, columns = round((top + side) * down) - first_row, round((left + side) * across) - first_column
    return first_row, first_column, max(1, rows), max(1, columns)


def _cropped(picture: npt.NDArray[np.uint8], crop: Crop, size: int) -> Tensor:
    """Crop (H, W, 3) and resize to (3, S, S); pixels outside the crop have no part in it."""
    top, left, height, width, mirrored = crop
    # Pillow's own crop has a limit of pixels.
    part = Image.fromarray(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    pixels = to_tensor(part.resize((size, size), Image.Resampling.BICUBIC))
    return pixels.flip(-1) if mirrored else pixels


def _random_crop(height: int, width: int, draws: Iterator[float]) -> Crop:
    """Draw a crop: area uniform, logarithm of the shape uniform, place uniform among whole pixels."""
    lowest, highest = map(math.log, _SHAPES)
    for _ in range(_ATTEMPTS):
        area = height * width * (_AREAS[0] + (_AREAS[1] - _AREAS[0]) * next(draws))
        shape = math.exp(lowest + (highest - lowest) * next(draws))
        columns, rows = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(next(draws) * (height - rows + 1)), int(next(draws) * (width - columns + 1))
            return top, left, rows, columns, next(draws) < 0.5
    # A long strip has no such crop: its central part of the nearest shape is taken.
    columns = max(1, min(width, round(height * _SHAPES[1])))
    rows = max(1, min(height, round(width / _SHAPES[0])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns, next(draws) < 0.5


def _uniform(seed: int, name: str) -> Iterator[float]:
    """Yield numbers in [0, 1) from SHA-256, whose values no library's next version changes."""
    start = hashlib.sha256(f"{seed}\0".encode() + name.encode("utf-8", "surrogatepass"))
    for block in itertools.count():
        digest = start.copy()
        digest.update(block.to_bytes(8, "little"))
        for begin in range(0, 32, 8):
            yield (int.from_bytes(digest.digest()[begin : begin + 8], "little") >> 11) / 2**53
