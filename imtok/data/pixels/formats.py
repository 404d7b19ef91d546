"""Image formats recognised by a file's name or by its first bytes.

The first bytes decide for files whose name says nothing, so the signatures are strict: text, source code, archives and
arrays are not taken for images, even where they begin with the two letters of BMP or PPM.
"""

from __future__ import annotations

import re
import struct

from imtok.data.reading import Rules

SUFFIXES = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp gif bmp tif tiff ppm pgm avif jp2 heic heif".split(" ")  # noqa: SIM905
)
_SINCE_RULES_2 = {".heic", ".heif"}
HEAD_BYTES = 64  # as many as `image_kind` looks at; a PPM often begins with a comment

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51\0": "JPEG2000",  # the bare codestream
}
_AVIF = {b"avif", b"avis"}
# `mif1` and `msf1` stand for HEIF with any codec: the brands after it say which one.
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
# Binary samples alone: the text forms P1 to P3 cannot be told from any other text.
_PNM = re.compile(
    rb"P[56]\s(?:\s|#[^\n]*\n)*[1-9]\d{0,6}\s(?:\s|#[^\n]*\n)*[1-9]\d{0,6}\s(?:\s|#[^\n]*\n)*[1-9]\d{0,4}\s"
)


def image_suffixes(rules: Rules) -> frozenset[str]:
    """Return the suffixes of images, in lower case and with their dot, under these rules of reading."""
    return SUFFIXES if rules > 1 else SUFFIXES - _SINCE_RULES_2


def image_kind(head: bytes) -> str | None:
    """Name the format of an image by its first bytes, of which `HEAD_BYTES` are enough; None where it is no image.

    The names are Pillow's: JPEG, PNG, GIF, WEBP, BMP, TIFF, PPM, JPEG2000, AVIF, HEIF.
    """
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:15] == b"WEBPVP8":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    if _is_tiff(head):
        return "TIFF"
    if _is_bmp(head):
        return "BMP"
    return "PPM" if _PNM.match(head) else None


def looks_like_image(head: bytes) -> bool:
    """Say whether a file begins as an image does, by its first `HEAD_BYTES` bytes."""
    return image_kind(head) is not None


def _kind_of_brands(head: bytes) -> str | None:
    """Name the kind of an ISO base media file: its major brand, then the compatible ones that `head` holds."""
    size = min(struct.unpack(">I", head[:4])[0], len(head))
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]
    if brands[0] not in _AVIF | _HEIF | {b"mif1", b"msf1"}:
        return None  # a film, as MP4 and QuickTime begin in the same way
    if _AVIF & set(brands):
        return "AVIF"
    return "HEIF"


def _is_tiff(head: bytes) -> bool:
    """Tell TIFF and BigTIFF of either byte order, whose first directory lies after the header."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return False
    version, first = struct.unpack(f"{order}HI", head[2:8])
    if version == 43:
        return bool(first == (8 if order == "<" else 8 << 16))  # offsets of 8 bytes, then a zero
    return bool(version == 42 and first >= 8)


def _is_bmp(head: bytes) -> bool:
    """Tell BMP by its reserved zeros, the size of its second header, and pixels that lie behind both."""
    if head[:2] != b"BM" or len(head) < 26:
        return False
    reserved, pixels, header = struct.unpack("<III", head[6:18])
    return bool(reserved == 0 and header in _BMP_HEADERS and 14 + header <= pixels)
