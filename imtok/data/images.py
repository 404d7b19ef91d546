"""Image bytes to RGB pixels, and the fitting of any picture to a square.

Untrusted bytes are read by Pillow alone (torchvision's PNG decoder ends the process on a broken checksum).
Everything odd is settled here: EXIF orientation is applied, transparency is laid on white, 16-bit gray is scaled
to 8 bits (Pillow's own conversion clips it to white), of an animation the first frame is taken.
"""

# Axes: H x W picture, S side of the square.

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from imtok.data.formats import HEAD_BYTES as HEAD_BYTES
from imtok.data.formats import SUFFIXES as SUFFIXES
from imtok.data.formats import image_kind as image_kind
from imtok.data.formats import looks_like_image as looks_like_image
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.errors import ImageError

Fit = Literal["crop", "pad"]

# Formats are listed because Pillow would otherwise try all it knows, PostScript through an outside program among them.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
# Pictures up to this many times longer than wide are resized whole before the crop.
_WIDEST = 4

# Pillow warns from half its limit on; the limit itself is what decides here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# A damaged EXIF block is no reason to refuse the picture, nor to write to the terminal from a worker thread.
warnings.filterwarnings("ignore", module=r"PIL\.", category=UserWarning)


@dataclass(frozen=True)
class Decoded:
    """A picture in RGB, with what is missing of it where it was salvaged."""

    picture: Image.Image
    problem: str | None = None  # None for a whole picture


def decode_image(data: bytes, reading: Reading = DEFAULT_READING) -> Image.Image:
    """Decode the picture in `data` to upright 8-bit RGB; raises ImageError alone, on anything it cannot read."""
    return decode_salvaging(data, reading).picture


def decode_salvaging(data: bytes, reading: Reading = DEFAULT_READING) -> Decoded:
    """Decode as `decode_image` does, and report what is missing of a picture that `reading` allows to salvage."""
    if not data:
        raise ImageError("empty", "zero bytes")
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = picture.size
        if width * height > reading.max_pixels:
            raise Image.DecompressionBombError
        picture.load()
        return Decoded(to_rgb(_upright(picture)))
    except UnidentifiedImageError as error:
        raise ImageError("not an image", _what_it_is(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            "too large", f"the header claims more than {reading.max_pixels // 10**6} megapixels"
        ) from error
    except MemoryError as error:
        raise ImageError("too large", "it does not fit in memory") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on broken data
        text = str(error) or type(error).__name__
        reason = "truncated" if "truncated" in text.lower() or isinstance(error, EOFError) else "corrupt"
        raise ImageError(reason, text.splitlines()[0]) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any Pillow picture to mode RGB: transparency on white, 16-bit gray scaled by 1/257."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError("unsupported", f"{picture.mode} values outside 0 .. 65535")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ImageError("unsupported", "floating-point pixels have no known range; save the picture with 8 or 16 bits")
    if "transparency" in picture.info or "A" in picture.mode or "a" in picture.mode:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


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
        cut = 1 - min(width, height) ** 2 / (width * height)
        return Fitted(to_tensor(square), (height, width), cut)
    box_height, box_width = padded_content(height, width, size)[2:]
    resized = np.asarray(picture.resize((box_width, box_height), Image.Resampling.BICUBIC))
    top, left = (size - box_height) // 2, (size - box_width) // 2
    rest = ((top, size - box_height - top), (left, size - box_width - left), (0, 0))
    return Fitted(to_tensor(np.pad(resized, rest, mode="edge")), (height, width), 0.0)


def resize_shorter(picture: Image.Image, size: int) -> Image.Image:
    """Bicubic to shorter side `size`, the longer side rounded to whole pixels.

    Of a picture more than four times as long as wide only the central part of that shape is taken.
    """
    width, height = picture.size
    if max(width, height) > _WIDEST * min(width, height):
        across, down = (min(side, _WIDEST * min(width, height)) for side in (width, height))
        left, top = (width - across) // 2, (height - down) // 2
        picture = picture.crop((left, top, left + across, top + down))
    return picture.resize(_shorter_to(*picture.size, size), Image.Resampling.BICUBIC)


def central_square(picture: Image.Image, size: int) -> Image.Image:
    """Take the central `size` x `size` of `resize_shorter`."""
    width, height = picture.size
    new_width, new_height = _shorter_to(width, height, size)
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


def image_size(data: bytes) -> tuple[int, int]:
    """Read (height, width) from the header alone, before EXIF turning; raises ImageError where it cannot be read."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=_FORMATS).size
    except Exception as error:  # as in decode_image
        raise ImageError("corrupt", str(error)) from error
    return height, width


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # an unreadable EXIF block says nothing about orientation
        return picture


def _shorter_to(width: int, height: int, size: int) -> tuple[int, int]:
    if width <= height:
        return size, max(size, round(height * size / width))
    return max(size, round(width * size / height)), size


def _what_it_is(data: bytes) -> str:
    head = data[:64].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return "text (an error page saved under an image's name?)"
    return f"no known image format begins with {data[:4].hex(' ')}"
