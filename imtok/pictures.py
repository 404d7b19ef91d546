"""Pictures as Python has them, of Pillow or as NumPy arrays, to one tensor of bytes."""

# Axes: B batch, H x W image.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imtok.errors import TokenizerError

Picture = Image.Image | np.ndarray
Pictures = Tensor | Picture | Sequence[Picture]


def to_tensor(images: Pictures) -> Tensor:
    """Return pictures as (B, 3, H, W) uint8; a tensor is returned as it is.

    Pictures are a PIL image of mode RGB or L, a uint8 array (H, W, 3) or (B, H, W, 3), or a list of images and arrays
    (H, W, 3) of one size. Raises TokenizerError on anything else; nothing is resized or cropped.
    """
    if isinstance(images, Tensor):
        return images
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return _channels_first(_checked(images))
    pictures = [images] if isinstance(images, Image.Image | np.ndarray) else list(images)
    arrays = [_array(picture) for picture in pictures]
    sizes = sorted({array.shape[:2] for array in arrays})
    if len(sizes) != 1:
        found = " and ".join(f"{height}x{width}" for height, width in sizes) or "none"
        raise TokenizerError(f"pictures of sizes {found}, expected one size in a list; crop them or encode each alone")
    return _channels_first(np.stack(arrays))


def _array(picture: object) -> np.ndarray:
    """Return one picture as (H, W, 3) uint8."""
    if isinstance(picture, Image.Image):
        if picture.mode not in ("RGB", "L"):
            raise TokenizerError(f'the picture has mode {picture.mode}, expected RGB; give picture.convert("RGB")')
        return np.asarray(picture.convert("RGB"))
    if isinstance(picture, np.ndarray) and picture.ndim == 3:
        return _checked(picture)
    shape = f" of shape {tuple(picture.shape)}" if isinstance(picture, np.ndarray | Tensor) else ""
    raise TokenizerError(
        f"a picture is {type(picture).__name__}{shape}, expected a PIL image or a uint8 array (H, W, 3); a tensor "
        "(B, 3, H, W) is given by itself"
    )


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.shape[-1] != 3:
        raise TokenizerError(
            f"the array is {array.dtype} of shape {array.shape}, expected uint8 (H, W, 3) or (B, H, W, 3); floats are "
            "taken as a tensor (B, 3, H, W) in [-1, 1]"
        )
    return array


def _channels_first(arrays: np.ndarray) -> Tensor:
    """Copy (B, H, W, 3) to (B, 3, H, W): an array may be read-only, or have negative strides."""
    return torch.from_numpy(np.array(arrays.transpose(0, 3, 1, 2), order="C"))
