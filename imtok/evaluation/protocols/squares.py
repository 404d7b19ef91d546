"""Ways from a picture to a square: each resizes the shorter side to S and takes the central S x S.

They differ in the filter, in the rounding of the longer side and in the rounding of the crop's corner; a corner that
lies one pixel further changes every metric.
"""

# Axes: H x W picture, S side of the square.

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imtok.data.images import fit_image, to_tensor
from imtok.errors import ImtokError

if TYPE_CHECKING:
    from torch import Tensor

# Of a picture more times longer than wide only the central part of this shape is resized: a strip of 6000 x 1 would be
# gigabytes on its way to the square.
_LONGEST = 16


def square_of_imtok(pixels: np.ndarray, size: int) -> Tensor:
    """Take the square that imtok trains and encodes with: Pillow's bicubic filter, `fit_image`."""
    return fit_image(Image.fromarray(pixels), size).pixels


def square_of_adm(pixels: np.ndarray, size: int) -> Tensor:
    """Halve by a box filter while the shorter side is at least 2S, then resize by Pillow's bicubic filter.

    Sides are rounded to the nearest pixel, the corner of the crop is rounded down: guided-diffusion,
    guided_diffusion/image_datasets.py, and LlamaGen, dataset/augmentation.py (`center_crop_arr`).
    """
    picture = Image.fromarray(_central_part(pixels))
    while min(picture.size) >= 2 * size:
        width, height = picture.size
        picture = picture.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return _crop(resized, (height - size) // 2, (width - size) // 2, size)


def square_of_taming(pixels: np.ndarray, size: int) -> Tensor:
    """Resize by OpenCV's bilinear filter without antialiasing.

    This is albumentations' SmallestMaxSize and CenterCrop as taming-transformers (taming/data/base.py) and SEED-Voken
    (src/Open_MAGVIT2/data/base.py) use them: sides are rounded to the nearest pixel, the corner is rounded down. A
    picture whose shorter side is S is not resized. Raises ImtokError where OpenCV is absent.
    """
    try:
        import cv2
    except ImportError:
        raise ImtokError("the protocol taming needs opencv-python-headless; pip install 'imtok[eval]'") from None
    pixels = np.ascontiguousarray(_central_part(pixels))
    scale = size / min(pixels.shape[:2])
    height, width = (round(side * scale) for side in pixels.shape[:2])
    if scale != 1:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))
    return _crop(pixels, (height - size) // 2, (width - size) // 2, size)


def square_of_titok(pixels: np.ndarray, size: int) -> Tensor:
    """Resize by Pillow's bicubic filter with torchvision's rounding: 1d-tokenizer, data/webdataset_reader.py."""
    return _torchvision_square(pixels, size, Image.Resampling.BICUBIC)


def square_of_var(pixels: np.ndarray, size: int) -> Tensor:
    """Resize by Pillow's Lanczos filter with torchvision's rounding: UniTok, utils/data.py (`build_transforms`).

    UniTok's utils/eval_fid.py reads PNG files and only crops them. A picture whose shorter side is S is only cropped
    here too.
    """
    return _torchvision_square(pixels, size, Image.Resampling.LANCZOS)


def _torchvision_square(pixels: np.ndarray, size: int, resampling: Image.Resampling) -> Tensor:
    """Resize and crop as torchvision's Resize and CenterCrop: the longer side is rounded down, the corner to even."""
    pixels = _central_part(pixels)
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    new_height, new_width = int(size * height / shorter), int(size * width / shorter)
    if shorter != size:
        pixels = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), resampling))
    return _crop(pixels, round((new_height - size) / 2), round((new_width - size) / 2), size)


def _central_part(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[top : top + longest, left : left + longest]


def _crop(pixels: np.ndarray, top: int, left: int, size: int) -> Tensor:
    return to_tensor(pixels[top : top + size, left : left + size])
