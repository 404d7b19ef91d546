"""Pillow pictures of any mode to 8-bit sRGB: profiles, transparency, 16 bits.

An embedded profile is applied by littleCMS with the perceptual intent, unless it is sRGB itself, which a grid of
colours tells. A profile that is broken or belongs to another mode is left aside. The chunks gAMA, cHRM and cICP of PNG
are not applied: writers set them carelessly, and the first is nearly always the 1/2.2 that sRGB means too.
"""

from __future__ import annotations

import functools
import io
import threading

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from imtok.errors import ImageError

_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS = 0, 262, 258  # a value and tags of TIFF
_TWO_COMPLEMENT, _SAMPLE_FORMAT = 2, 339
_DEPTH, _INVERTED, _SIGNED = "imtok_depth", "imtok_inverted", "imtok_signed"  # entries of `info`
_MAX_PROFILE = 16 * 2**20  # bytes; the largest of printers have about 4 MB
_SAME = 2  # levels by which a profile may differ from sRGB and still be taken for it


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any Pillow picture to mode RGB without its profile: transparency on white, 16 bits scaled by 1/257."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):
        return _eight_bits(np.asarray(picture).astype(np.int64), picture.mode).convert("RGB")
    if picture.mode == "F":
        raise ImageError("unsupported", "floating-point pixels have no known range; save the picture with 8 or 16 bits")
    if _has_alpha(picture):
        return _on_white(picture.convert("RGBA"))
    return picture.convert("RGB")


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert any Pillow picture to sRGB in mode RGB: from `profile`, then transparency on white.

    Raises ImageError where the values of the pixels have no known meaning.
    """
    if picture.info.get(_SIGNED) or (picture.mode == "I" and _depth(picture) == 32):
        raise ImageError("unsupported", "signed or 32-bit integers have no known range; save the picture with 16 bits")
    if picture.mode.startswith("I"):
        picture = _gray_of_sixteen(picture)
    elif picture.mode in ("1", "L") and "transparency" in picture.info:
        picture = _gray_with_key(picture)
    elif picture.mode == "RGB" and "transparency" in picture.info and _depth(picture) == 16:
        picture = _without_far_key(picture)
    if picture.mode == "LAB":
        return _converted(picture, "LAB", _lab_profile()) or to_rgb(picture)
    if profile is None or len(profile) > _MAX_PROFILE:
        return to_rgb(picture)
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return _converted(picture, "RGB", profile) or picture
    if not _has_alpha(picture):
        mode = {"1": "L", "L": "L", "CMYK": "CMYK"}.get(picture.mode, "RGB")
        return _converted(picture.convert(mode), mode, profile) or to_rgb(picture)
    mode = "L" if picture.mode in ("LA", "La") else "RGB"
    with_alpha = picture.convert("LA" if mode == "L" else "RGBA")
    colours = _converted(with_alpha.convert(mode), mode, profile)
    if colours is None:
        return to_rgb(picture)
    colours.putalpha(with_alpha.getchannel("A"))
    return _on_white(colours)


def _has_alpha(picture: Image.Image) -> bool:
    return "transparency" in picture.info or "A" in picture.mode.replace("LAB", "") or "a" in picture.mode


def _on_white(picture: Image.Image) -> Image.Image:
    """Lay a picture in RGBA on white."""
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> Image.Image:
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError("unsupported", f"{mode} values outside 0 .. 65535")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _gray_of_sixteen(picture: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8 bits, with what Pillow leaves to be done: 12 bits, white as zero, a transparent level."""
    values = np.asarray(picture).astype(np.int64)
    if _depth(picture) == 12:
        values = (values * 65535 + 2047) // 4095
    if picture.info.get(_INVERTED) and picture.mode.startswith("I;16"):
        values = 65535 - values
    gray = _eight_bits(values, picture.mode)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return gray


def _gray_with_key(picture: Image.Image) -> Image.Image:
    """Turn the transparent level of 1- to 8-bit gray into alpha; its value counts in the levels of the file."""
    key, depth = picture.info["transparency"], _depth(picture)
    gray = picture.convert("L")
    if isinstance(key, int) and depth is not None:
        shown = key * 255 // (2**depth - 1)
        gray.putalpha(Image.fromarray(np.where(np.asarray(gray) == shown, 0, 255).astype(np.uint8)))
        return gray
    return picture


def _without_far_key(picture: Image.Image) -> Image.Image:
    """Drop the transparent colour of 16-bit RGB where no pixel is near it; Pillow keeps the upper bytes alone."""
    key = np.array(picture.info["transparency"]) // 256
    if (np.asarray(picture) == key).all(axis=2).any():
        raise ImageError("unsupported", "16-bit colours with a transparent colour; save the picture with alpha")
    plain = picture.copy()
    del plain.info["transparency"]
    return plain


def note_samples(picture: Image.Image, data: bytes) -> None:
    """Write into `info` what Pillow's modes do not say: bits of a sample in PNG and TIFF, and whether 0 is white."""
    if picture.format == "PNG":
        picture.info[_DEPTH] = data[24]
    elif isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(_BITS, (8,))
        picture.info[_DEPTH] = bits[0] if isinstance(bits, tuple) else bits
        picture.info[_INVERTED] = picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        picture.info[_SIGNED] = _TWO_COMPLEMENT in picture.tag_v2.get(_SAMPLE_FORMAT, ())


def _depth(picture: Image.Image) -> int | None:
    depth = picture.info.get(_DEPTH)
    return depth if isinstance(depth, int) else None


def _converted(picture: Image.Image, mode: str, profile: bytes) -> Image.Image | None:
    """Convert a picture in `mode` to sRGB in RGB; None where its profile does not fit, or changes nothing."""
    transform = _transform(profile, mode, threading.get_ident())
    if transform is None:
        return None
    try:
        return ImageCms.applyTransform(picture, transform)
    except ImageCms.PyCMSError:
        return None


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str, thread: int) -> ImageCms.ImageCmsTransform | None:  # noqa: ARG001
    """Return the transform from a profile to sRGB for one thread; None for sRGB and for what is no profile of `mode`.

    Each thread has its own, as littleCMS promises safety for separate transforms alone.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != {"L": "GRAY", "LAB": "Lab"}.get(mode, mode):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except Exception:  # a broken profile says nothing of the colours; Pillow raises several kinds
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return bool(np.abs(changed.astype(int) - grid).max() <= _SAME)


@functools.cache
def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
