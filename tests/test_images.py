"""Image bytes to RGB pixels, and pictures to squares."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from making import encoded, picture
from PIL import Image

from imtok.data.images import (
    central_square,
    decode_image,
    fit_image,
    image_size,
    padded_content,
    to_picture,
    to_tensor,
)
from imtok.errors import ImageError


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("GIF", "P"),
        ("PPM", "L"),
    ],
)
def test_lossless_formats_and_modes_become_rgb(file_format: str, mode: str) -> None:
    source = picture(0).convert(mode)
    decoded = decode_image(encoded(source, file_format))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(pixels(decoded), pixels(source.convert("RGB")))


@pytest.mark.parametrize(
    ("file_format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 95})]
)
def test_lossy_formats_come_close(file_format: str, options: dict[str, object]) -> None:
    source = picture(1)
    decoded = decode_image(encoded(source, file_format, **options))
    assert np.abs(pixels(decoded).astype(int) - pixels(source)).mean() < 6


def test_cmyk_becomes_rgb() -> None:
    decoded = decode_image(encoded(picture(0).convert("CMYK"), "JPEG", quality=95))
    assert decoded.mode == "RGB"
    assert np.abs(pixels(decoded).astype(int) - pixels(picture(0))).mean() < 6


def test_content_decides_and_not_the_name() -> None:
    assert decode_image(encoded(picture(0), "JPEG")).size == (40, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = picture(0)
    decoded = decode_image(encoded(source, "PNG", exif=exif))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # PIL's transpositions, by orientation
    upright = source.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else source
    np.testing.assert_array_equal(pixels(decoded), pixels(upright))


def test_a_damaged_exif_block_is_no_reason_to_refuse() -> None:
    decoded = decode_image(encoded(picture(0), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense"))
    np.testing.assert_array_equal(pixels(decoded), pixels(picture(0)))


def test_sixteen_bit_gray_is_scaled_and_not_clipped_to_white() -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values)))
    assert pixels(decoded)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    source = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    source.putpixel((1, 0), (0, 0, 0, 0))
    decoded = decode_image(encoded(source.convert(mode)))
    assert pixels(decoded)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_a_transparent_palette_entry_is_laid_on_white() -> None:
    source = Image.new("P", (2, 1))
    source.putpalette([0, 0, 0, 200, 10, 10])
    source.putpixel((1, 0), 1)
    decoded = decode_image(encoded(source, "PNG", transparency=0))
    assert pixels(decoded)[0].tolist() == [[255, 255, 255], [200, 10, 10]]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    decoded = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.getpixel((0, 0)) == (255, 0, 0)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="unsupported"):
        decode_image(encoded(Image.new("F", (2, 2)), "TIFF"))


def _bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _broken_crc() -> bytes:
    data = bytearray(encoded(picture(0)))
    data[60] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not an image"),
        (bytes(range(256)), "not an image"),
        (_bomb(), "too large"),
        (_broken_crc(), "corrupt"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_file_cut_anywhere_raises_an_image_error(file_format: str) -> None:
    whole = encoded(picture(2), file_format)
    for length in {len(whole) * part // 20 for part in range(19)}:
        with pytest.raises(ImageError):
            decode_image(whole[:length])


@pytest.mark.parametrize(("width", "height"), [(40, 48), (101, 33), (32, 32), (1, 1), (5, 7), (200, 64), (31, 90)])
def test_a_crop_is_the_centre_of_the_whole_picture_resized(width: int, height: int) -> None:
    source, size = picture(3, width, height), 32
    scale = size / min(width, height)
    whole = source.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC)
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = whole.crop((left, top, left + size, top + size))
    fitted = fit_image(source, size)
    np.testing.assert_array_equal(fitted.pixels.permute(1, 2, 0).numpy(), pixels(expected))
    assert fitted.original == (height, width)
    assert fitted.cut == pytest.approx(1 - min(width, height) / max(width, height))


@pytest.mark.parametrize(("width", "height"), [(300, 20), (20, 300), (1000, 3)])
def test_a_strip_is_cropped_as_if_resized_whole(width: int, height: int) -> None:
    source, size = picture(4, width, height), 32
    scale = size / min(width, height)
    whole = source.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = whole.crop((left, top, left + size, top + size))
    difference = np.abs(pixels(central_square(source, size)).astype(int) - pixels(expected))
    assert difference.mean() < 2


def test_a_strip_of_6000_to_1_costs_little_memory() -> None:
    source = picture(5, 6000, 1)
    before = _reset_peak()
    fit_image(source, 256)
    assert _peak() - before < 64 * 2**20


def _reset_peak() -> int:
    """Bytes in use, with the peak counted anew from here; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not reset the peak of memory use")
    return _peak()


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(("width", "height"), [(40, 48), (101, 33), (64, 64), (1, 9), (3000, 2)])
def test_padding_keeps_the_whole_picture_and_can_be_undone(width: int, height: int) -> None:
    source, size = picture(6, width, height), 32
    fitted = fit_image(source, size, "pad")
    top, left, inner_height, inner_width = padded_content(height, width, size)
    inner = fitted.pixels[:, top : top + inner_height, left : left + inner_width]
    expected = source.resize((inner_width, inner_height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(inner.permute(1, 2, 0).numpy(), pixels(expected))
    assert max(inner_height, inner_width) == size
    assert fitted.cut == 0
    assert fitted.pixels.shape == (3, size, size)
    assert torch.equal(fitted.pixels[:, 0], fitted.pixels[:, top])  # the edge repeated outwards


def test_tensors_become_pictures_and_back() -> None:
    source = picture(7)
    tensor = to_tensor(source)
    assert tensor.shape == (3, 48, 40)
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(pixels(to_picture(tensor)), pixels(source))


def test_the_size_is_read_from_the_header_alone() -> None:
    data = encoded(picture(0, 400, 480), "JPEG", quality=95)
    assert image_size(data[: len(data) // 2]) == (480, 400)
    with pytest.raises(ImageError):
        image_size(b"nothing")


def test_decoding_reads_no_more_than_it_is_given() -> None:
    # Bytes after the end of the image are no part of it.
    whole = encoded(picture(8))
    assert pixels(decode_image(whole + b"trailing")).tolist() == pixels(Image.open(io.BytesIO(whole))).tolist()
