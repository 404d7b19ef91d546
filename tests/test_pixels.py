"""Image bytes to upright pixels: limits, HEIC, animations, orientation."""

from __future__ import annotations

import io
import sys

import numpy as np
import pillow_heif
import pytest
from making import encoded, picture
from PIL import Image

from imtok.data.images import decode_image, fit_image, image_size
from imtok.data.reading import Reading
from imtok.errors import ImageError


def heic(source: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(source).save(file, quality=95, **options)
    return file.getvalue()


def test_heic_is_read_and_turned_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = picture(0, 64, 48)
    decoded = decode_image(heic(source, exif=exif.tobytes()))
    expected = np.asarray(source.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(np.asarray(decoded).astype(int) - expected).mean() < 8


def test_the_size_of_a_heic_is_read_from_its_header() -> None:
    assert image_size(heic(picture(0, 64, 48))) == (48, 64)


def test_heic_names_its_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(picture(0, 64, 48))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"unsupported: .*pip install 'imtok\[heic\]'"):
        decode_image(data)


def test_rules_1_know_no_heic() -> None:
    with pytest.raises(ImageError, match="not an image"):
        decode_image(heic(picture(0, 64, 48)), Reading(rules=1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_the_limit_of_pixels_decides_alone(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(0, 40, 48), file_format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow refuses from twice as many on
    assert decode_image(data, Reading(max_pixels=40 * 48)).size == (40, 48)
    with pytest.raises(ImageError, match=r"too large: .*--max-pixels"):
        decode_image(data, Reading(max_pixels=40 * 48 - 1))


def test_a_wide_panorama_is_fitted_beyond_pillows_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    source = picture(0, 400, 40)
    expected = fit_image(source, 32).pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert fit_image(source, 32).pixels.equal(expected)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_several_frames_the_first_is_laid_on_white(file_format: str) -> None:
    first, second = (Image.new("RGBA", (4, 4), colour) for colour in ((255, 0, 0, 0), (0, 0, 255, 255)))
    first.putpixel((0, 0), (0, 255, 0, 255))
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = decode_image(encoded(first, file_format, save_all=True, append_images=[second], **options))
    assert [decoded.getpixel(place) for place in ((0, 0), (3, 3))] == [(0, 255, 0), (255, 255, 255)]


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG", "TIFF"])
def test_orientation_is_applied_in_each_format(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    assert decode_image(encoded(picture(0, 40, 48), file_format, exif=exif)).size == (48, 40)


def test_a_drawing_is_called_so() -> None:
    with pytest.raises(ImageError, match="not an image: an SVG drawing"):
        decode_image(b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>")
