"""Image bytes to upright RGB pixels.

Untrusted bytes are read by Pillow alone (torchvision's PNG decoder ends the process on a broken checksum), HEIC by its
plugin pillow-heif. Everything odd is settled here: EXIF orientation is applied, colours become sRGB (`color`), of an
animation the first frame is taken, and what only looks like damage is no reason to refuse a picture (`png`, `jpeg`).
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from imtok.data.pixels.color import note_samples, to_rgb, to_srgb
from imtok.data.pixels.formats import HEAD_BYTES, image_kind
from imtok.data.pixels.jpeg import endings, with_end
from imtok.data.pixels.png import without_texts
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.errors import ImageError

# Formats are listed because Pillow would otherwise try all it knows, PostScript through an outside program among them.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")

# Pillow warns from half its limit on; the limit of `Reading` is what decides here.
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
    """Decode as `decode_image` does, and report what is missing of a picture that `reading` allows to salvage.

    Missing parts are gray or black, as the decoder leaves them. A picture of which nothing can be seen is not salvaged.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    try:
        return _by_rules_1(data, reading) if reading.rules == 1 else _by_rules_2(data, reading)
    except UnidentifiedImageError as error:
        if reading.rules > 1 and image_kind(data[:HEAD_BYTES]) == "TIFF":
            raise ImageError("unsupported", "a TIFF of a rare layout, or with a damaged header") from error
        raise ImageError("not an image", _what_it_is(data)) from error
    except Image.DecompressionBombError as error:
        limit = reading.max_pixels
        raise ImageError("too large", f"the header claims more than {limit:,} pixels; see --max-pixels") from error
    except MemoryError as error:
        raise ImageError("too large", "it does not fit in memory") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on broken data
        reason = "truncated" if _is_truncated(error) else "corrupt"
        raise ImageError(reason, _first_line(error)) from error


def image_size(data: bytes, reading: Reading = DEFAULT_READING) -> tuple[int, int]:
    """Read (height, width) from the header alone, before EXIF turning; raises ImageError where it cannot be read."""
    try:
        try:
            picture = _opened(data, reading)
        except ValueError as error:
            if not _is_limit_of_texts(error):
                raise
            picture = _opened(without_texts(data)[0], reading)
    except ImageError:
        raise
    except Exception as error:  # as in decode_image
        raise ImageError("corrupt", str(error)) from error
    width, height = picture.size
    return height, width


def _by_rules_1(data: bytes, reading: Reading) -> Decoded:
    picture: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    _check_size(picture, reading)
    picture.load()
    with suppress(Exception):  # as in rules 2
        picture = ImageOps.exif_transpose(picture)
    return Decoded(to_rgb(picture))


def _by_rules_2(data: bytes, reading: Reading) -> Decoded:
    profile = None
    try:
        picture, problem = _loaded(data, reading)
    except ValueError as error:
        if not _is_limit_of_texts(error):
            raise
        data, profile = without_texts(data)
        picture, problem = _loaded(data, reading)
    profile = profile or picture.info.get("icc_profile")
    note_samples(picture, data)
    with suppress(Exception):  # an unreadable EXIF block says nothing about orientation
        ImageOps.exif_transpose(picture, in_place=True)  # a copy would double the memory of a panorama
    return Decoded(to_srgb(picture, profile), problem)


def _loaded(data: bytes, reading: Reading) -> tuple[Image.Image, str | None]:
    """Load a picture, and what is missing of it where it was salvaged; raises what Pillow raises."""
    picture = _opened(data, reading)
    try:
        picture.load()
        return picture, None
    except Exception as error:
        if not _is_truncated(error):
            raise
        is_jpeg = picture.format in ("JPEG", "MPO")
        whole = _whole_jpeg(data, reading) if is_jpeg else None
        if whole is not None:
            return whole, None
        part = _opened(with_end(data), reading) if is_jpeg else picture
        if not reading.salvage_images or not _has_content(part, is_jpeg):
            raise
        return part, _first_line(error)


def _opened(data: bytes, reading: Reading) -> Image.Image:
    """Open a picture of up to `reading.max_pixels`; a lower limit of Pillow is raised for the whole process."""
    known = Image.MAX_IMAGE_PIXELS
    if known is not None and reading.max_pixels > 2 * known:
        # Plugins look at this global again while they load. It is only ever raised, which is safe among threads.
        Image.MAX_IMAGE_PIXELS = reading.max_pixels
    heif = image_kind(data[:HEAD_BYTES]) == "HEIF" and _reads_heif()
    picture = Image.open(io.BytesIO(data), formats=(*_FORMATS, "HEIF") if heif else _FORMATS)
    _check_size(picture, reading)
    return picture


def _check_size(picture: Image.Image, reading: Reading) -> None:
    width, height = picture.size
    if width * height > reading.max_pixels:
        raise Image.DecompressionBombError


def _reads_heif() -> bool:
    """Register the reader of HEIC; raises ImageError that names the extra where it is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("unsupported", "a HEIC picture, read after: pip install 'imtok[heic]'") from error
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()
    return True


def _whole_jpeg(data: bytes, reading: Reading) -> Image.Image | None:
    """Decode a JPEG that lacks its end marker and nothing else; None where pixels are missing."""
    # A last byte of 255 begins either the end marker or a stuffed byte of data.
    for version in (data, data + b"\0") if data.endswith(b"\xff") else (data,):
        pictures = map(partial(_ended, reading=reading), endings(version))
        first = next(pictures, None)
        if first is not None and all(np.array_equal(np.asarray(first), np.asarray(other)) for other in pictures):
            return first
    return None


def _ended(data: bytes, reading: Reading) -> Image.Image:
    picture = _opened(data, reading)
    picture.load()
    return picture


def _has_content(picture: Image.Image, is_jpeg: bool) -> bool:
    """Say whether anything can be seen of a truncated picture, and make it usable."""
    try:
        if is_jpeg:
            picture.load()
        if isinstance(picture, ImageFile.ImageFile):
            picture.tile = []  # what Pillow still has to read: nothing more can be
        extrema = picture.getextrema()
    except Exception:
        return False
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return any(band[0] != band[1] for band in bands)


def _is_limit_of_texts(error: ValueError) -> bool:
    return "PngImagePlugin" in str(error)  # Pillow names its constant


def _is_truncated(error: Exception) -> bool:
    return "truncated" in str(error).lower() or isinstance(error, EOFError)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _what_it_is(data: bytes) -> str:
    head = data[:64].lstrip().lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in data[:2000].lower()):
        return "an SVG drawing; render it to PNG first"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return "text (an error page saved under an image's name?)"
    return f"no known image format begins with {data[:4].hex(' ')}"
