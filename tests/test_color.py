"""Colours to sRGB: profiles, transparency, 16 bits, inverted gray."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from making import encoded, picture
from PIL import Image, ImageCms

from imtok.data.images import decode_image
from imtok.data.pixels.color import to_srgb
from imtok.data.reading import Reading
from imtok.errors import ImageError

RULES_1 = Reading(rules=1)


def rgb_profile(red: tuple[float, float, float], gamma: float) -> bytes:
    """A matrix profile with sRGB's green and blue and this red, in XYZ of D50."""
    columns = (b"rXYZ", red), (b"gXYZ", (0.3851, 0.7169, 0.0971)), (b"bXYZ", (0.1431, 0.0606, 0.7141))
    tags = [(name, b"XYZ " + bytes(4) + _fixed(*values)) for name, values in columns]
    tags.append((b"wtpt", b"XYZ " + bytes(4) + _fixed(0.9642, 1.0, 0.8249)))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _profile(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return _profile(b"GRAY", [(b"wtpt", b"XYZ " + bytes(4) + _fixed(0.9642, 1.0, 0.8249)), (b"kTRC", curve)])


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _profile(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + table + body


LINEAR = rgb_profile((0.4361, 0.2225, 0.0139), 1.0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_of_linear(value: int) -> int:
    share = value / 255
    return round(255 * (12.92 * share if share <= 0.0031308 else 1.055 * share ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_a_profile_is_converted_to_srgb(file_format: str) -> None:
    source = Image.new("RGB", (4, 4), (10, 60, 200))
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(source, file_format, icc_profile=LINEAR, **options)
    expected = [srgb_of_linear(value) for value in (10, 60, 200)]
    assert np.abs(np.array(decode_image(data).getpixel((0, 0))) - expected).max() <= 1
    assert decode_image(data, RULES_1).getpixel((0, 0)) == (10, 60, 200)


def test_an_srgb_profile_changes_no_pixel() -> None:
    source = picture(0)
    assert np.array_equal(decode_image(encoded(source, icc_profile=SRGB)), source)


@pytest.mark.parametrize("profile", [b"nonsense", LINEAR[:200], gray_profile(1.0), bytes(128)])
def test_a_profile_that_does_not_fit_is_left_aside(profile: bytes) -> None:
    source = picture(0)
    assert np.array_equal(decode_image(encoded(source, icc_profile=profile)), source)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_has_its_profile_applied(mode: str) -> None:
    source = Image.new("L", (2, 2), 60)
    if mode == "I;16":
        source = Image.fromarray(np.full((2, 2), 60 * 257, dtype=np.uint16))
    data = encoded(source.convert(mode) if mode == "LA" else source, "PNG", icc_profile=gray_profile(1.0))
    assert np.abs(np.array(decode_image(data).getpixel((0, 0))) - srgb_of_linear(60)).max() <= 1


def test_transparency_is_laid_on_white_after_the_profile() -> None:
    source = Image.new("RGBA", (1, 1), (60, 60, 60, 128))
    share = 128 / 255
    expected = round(srgb_of_linear(60) * share + 255 * (1 - share))
    pixel = decode_image(encoded(source, icc_profile=LINEAR)).getpixel((0, 0))
    assert np.abs(np.array(pixel) - expected).max() <= 1


def test_a_palette_has_its_profile_applied() -> None:
    source = Image.new("P", (1, 1))
    source.putpalette([60, 60, 60])
    pixel = decode_image(encoded(source, icc_profile=LINEAR)).getpixel((0, 0))
    assert np.abs(np.array(pixel) - srgb_of_linear(60)).max() <= 1


def test_lab_becomes_srgb() -> None:
    # sRGB's pure red is L* 54.29, a* 80.8, b* 69.9 under D50.
    source = Image.frombytes("LAB", (1, 1), bytes([round(54.29 * 2.55), 81, 70]))
    assert np.abs(np.array(to_srgb(source, None).getpixel((0, 0))) - (255, 0, 0)).max() <= 12


def test_threads_convert_alike() -> None:
    data = [encoded(picture(seed, 80, 80), icc_profile=LINEAR) for seed in range(4)]
    expected = [np.asarray(decode_image(one)) for one in data]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            wrong.extend([index] * (not np.array_equal(decode_image(data[index]), expected[index])))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def png(width: int, depth: int, kind: int, row: bytes, key: bytes = b"") -> bytes:
    """A PNG of one row."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))]
    chunks += [(b"tRNS", key)] if key else []
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def big(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(3, 16, 0, big(0, 1000, 65535), big(1000)), [[0] * 3, [255] * 3, [255] * 3]),
        (png(2, 16, 4, big(0, 65535, 30000, 0)), [[0] * 3, [255] * 3]),
        (png(2, 16, 6, big(65535, 0, 32896, 65535, 9, 9, 9, 0)), [[255, 0, 128], [255] * 3]),
        (png(1, 16, 2, big(65535, 257 * 7, 0)), [[255, 7, 0]]),
        (png(1, 16, 2, big(65535, 0, 0), big(1, 2, 3)), [[255, 0, 0]]),
        (png(4, 2, 0, bytes([0b00011011]), big(2)), [[0] * 3, [85] * 3, [255] * 3, [255] * 3]),
        (png(2, 4, 0, bytes([0x5A]), big(10)), [[85] * 3, [255] * 3]),
        (png(2, 1, 0, bytes([0b01000000]), big(0)), [[255] * 3, [255] * 3]),
    ],
)
def test_transparency_counts_in_the_levels_of_the_file(data: bytes, expected: list[list[int]]) -> None:
    assert np.asarray(decode_image(data))[0].tolist() == expected


def test_a_transparent_colour_of_sixteen_bits_is_unsupported() -> None:
    with pytest.raises(ImageError, match="unsupported"):
        decode_image(png(1, 16, 2, big(65535, 0, 0), big(65535, 0, 0)))


def tiff(bits: int, photometric: int, row: bytes, order: str = "<", width: int = 2, sample_format: int = 1) -> bytes:
    """A gray TIFF of one row."""
    values = {
        256: width,
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        277: 1,
        278: 1,
        279: len(row),
        339: sample_format,
    }
    values[273] = 8 + 2 + 12 * (len(values) + 1) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(values))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, values[tag]) for tag in sorted(values))
    return head + entries + bytes(4) + row


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(16, 0, struct.pack("<2H", 0, 257 * 3)), [255, 252]),
        (tiff(8, 0, bytes([0, 3])), [255, 252]),
        (tiff(1, 0, bytes([0b01000000])), [255, 0]),
        (tiff(16, 1, struct.pack(">2H", 0, 257 * 3), ">"), [0, 3]),
        (tiff(8, 0, bytes([0, 3]), ">"), [255, 252]),
        (tiff(12, 1, bytes([0xFF, 0xF0, 0x00])), [255, 0]),
    ],
)
def test_gray_tiffs_have_the_right_levels(data: bytes, expected: list[int]) -> None:
    assert np.asarray(decode_image(data))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "data",
    [
        tiff(16, 0, struct.pack(">2H", 0, 9), ">"),
        tiff(8, 1, bytes([251, 100]), sample_format=2),
        tiff(16, 1, struct.pack("<2h", 5, 100), sample_format=2),
        tiff(32, 1, struct.pack("<2I", 60000, 0)),
    ],
)
def test_levels_of_unknown_range_are_unsupported(data: bytes) -> None:
    with pytest.raises(ImageError, match="unsupported"):
        decode_image(data)


def test_rules_1_keep_the_levels_of_before() -> None:
    inverted = tiff(16, 0, struct.pack("<2H", 0, 257 * 3))
    assert np.asarray(decode_image(inverted, RULES_1))[0, :, 0].tolist() == [0, 3]
    keyed = png(2, 16, 0, big(1000, 65535), big(1000))
    assert np.asarray(decode_image(keyed, RULES_1))[0, :, 0].tolist() == [4, 255]


def test_an_inverted_jpeg_of_photoshop_has_its_profile_tried() -> None:
    file = io.BytesIO()
    source = picture(3).convert("CMYK")
    source.save(file, "JPEG", quality=95, icc_profile=LINEAR)  # a profile of RGB does not fit
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    assert np.array_equal(decode_image(file.getvalue()), expected)
