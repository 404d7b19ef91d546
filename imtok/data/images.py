"""Pictures and tensors, and the fitting of any picture to a square; `decode_image` of `pixels` can be had here too."""

# Axes: H x W picture, S side of the square.

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imtok.data.pixels.decoding import Decoded as Decoded
from imtok.data.pixels.decoding import decode_image as decode_image
from imtok.data.pixels.decoding import decode_salvaging as decode_salvaging
from imtok.data.pixels.decoding import image_size as image_size
from imtok.data.pixels.formats import HEAD_BYTES as HEAD_BYTES
from imtok.data.pixels.formats import SUFFIXES as SUFFIXES
from imtok.data.pixels.formats import image_kind as image_kind
from imtok.data.pixels.formats import looks_like_image as looks_like_image

Fit = Literal["crop", "pad"]

# Pictures up to this many times longer than wide are resized whole before the crop.
_WIDEST = 4


@dataclass(frozen=True)
class Fitted:
    """A picture brought to a square, with what was done to it."""

    pixels: Tensor  # (3, S, S) uint8
    original: tuple[int, int]  # height, width after EXIF turning
    cut: float  # share of the picture's area that the crop left out, 0 for pad


def fit_image(picture: Image.Image, size: int, fit: Fit = "crop") -> Fitted:
    """Bring an RGB picture to `size` x `size`.

    `crop`: bicubic to shorter side `size`, then the central square; `pad`: bicubic to longer side `size`, centred,
    with its edge pixels repeated outwards.
    """
    width, height = picture.size
    if fit == "crop":
        square = central_square(picture, size)
        return Fitted(to_tensor(square), (height, width), cut_share(picture, fit))
    box_height, box_width = padded_content(height, width, size)[2:]
    resized = np.asarray(picture.resize((box_width, box_height), Image.Resampling.BICUBIC))
    top, left = (size - box_height) // 2, (size - box_width) // 2
    rest = ((top, size - box_height - top), (left, size - box_width - left), (0, 0))
    return Fitted(to_tensor(np.pad(resized, rest, mode="edge")), (height, width), 0.0)


def cut_share(picture: Image.Image, fit: Fit) -> float:
    """Return the share of a picture's area that `fit_image` leaves out, 0 for pad."""
    width, height = picture.size
    return 1 - min(width, height) ** 2 / (width * height) if fit == "crop" else 0.0


def resize_shorter(picture: Image.Image, size: int) -> Image.Image:
    """Bicubic to shorter side `size`, the longer side rounded to whole pixels.

    Of a picture more than four times as long as wide only the central part of that shape is taken.
    """
    width, height = picture.size
    if max(width, height) > _WIDEST * min(width, height):
        across, down = (min(side, _WIDEST * min(width, height)) for side in (width, height))
        left, top = (width - across) // 2, (height - down) // 2
        # Pillow's own crop has a limit of pixels.
        picture = Image.fromarray(np.asarray(picture)[top : top + down, left : left + across])
    return picture.resize(shorter_to(*picture.size, size), Image.Resampling.BICUBIC)


def central_square(picture: Image.Image, size: int) -> Image.Image:
    """Take the central `size` x `size` of `resize_shorter`."""
    width, height = picture.size
    new_width, new_height = shorter_to(width, height, size)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    if max(new_width, new_height) <= _WIDEST * size:
        whole = resize_shorter(picture, size)
        return whole.crop((left, top, left + size, top + size))
    # A 6000 x 1 strip would be gigabytes on its way to a square, so only the square is made. Pillow may then run
    # its two passes in the other order, which moves some pixels by a few levels: hence not for every picture.
    across, down = width / new_width, height / new_height
    right, bottom = min(width, (left + size) * across), min(height, (top + size) * down)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=(left * across, top * down, right, bottom))


def padded_content(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Locate a picture of this size in the square of `fit_image(…, "pad")`: top, left, height, width."""
    longer = max(height, width)
    inner_height, inner_width = max(1, round(height * size / longer)), max(1, round(width * size / longer))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def to_tensor(pixels: Image.Image | np.ndarray) -> Tensor:
    """Convert an RGB picture or an (H, W, 3) uint8 array to (3, H, W) uint8, contiguous."""
    array = np.array(pixels, dtype=np.uint8)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_picture(pixels: Tensor) -> Image.Image:
    """Convert (3, H, W) uint8 to an RGB picture."""
    return Image.fromarray(pixels.cpu().permute(1, 2, 0).contiguous().numpy())


def shorter_to(width: int, height: int, size: int) -> tuple[int, int]:
    """Return width and height of a picture whose shorter side is brought to `size`."""
    if width <= height:
        return size, max(size, round(height * size / width))
    return max(size, round(width * size / height)), size
