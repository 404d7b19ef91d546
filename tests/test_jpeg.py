"""JPEGs that lack their end: whole where only the end marker is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from making import encoded, picture
from PIL import Image

from imtok.data.images import decode_image, decode_salvaging
from imtok.data.reading import Reading
from imtok.errors import ImageError

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "gray": ("L", {}),
    "4:2:0": ("RGB", {"subsampling": 2}),
    "4:4:4, quality 100": ("RGB", {"subsampling": 0, "quality": 100}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive gray": ("L", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_blocks": 1, "subsampling": 0}),
    "restarts by row": ("RGB", {"restart_marker_rows": 1}),
    "progressive with restarts": ("RGB", {"restart_marker_rows": 1, "progressive": True}),
    "CMYK": ("CMYK", {}),
    "optimized": ("RGB", {"optimize": True}),
}


def jpeg(kind: str, size: tuple[int, int] = (37, 29)) -> bytes:
    mode, options = KINDS[kind]
    return encoded(picture(0, *size).convert(mode), "JPEG", **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_whole(kind: str, missing: int) -> None:
    whole = jpeg(kind)
    assert np.array_equal(decode_image(whole[:-missing]), decode_image(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_that_costs_pixels_is_taken_for_whole(kind: str) -> None:
    whole = jpeg(kind)
    expected = np.asarray(decode_image(whole))
    taken = {missing: _taken(whole[:-missing]) for missing in range(1, 60)}
    assert all(cut is None or np.array_equal(cut, expected) for cut in taken.values())
    assert all(taken[missing] is None for missing in range(6, 60))


def _taken(data: bytes) -> Image.Image | None:
    try:
        return decode_image(data)
    except ImageError:
        return None


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_plain_areas_do_not_hide_that_rows_are_missing(shade: int) -> None:
    source = picture(0, 64, 64)
    source.paste((shade, shade, shade), (0, 24, 64, 64))
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        whole = encoded(source, "JPEG", **options)
        for missing in range(6, 30):
            with pytest.raises(ImageError):
                decode_image(whole[:-missing])


def test_zeros_of_a_broken_copy_are_no_pixels() -> None:
    whole = jpeg("4:2:0", (200, 160))
    with pytest.raises(ImageError, match="truncated"):
        decode_image(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))


def test_rules_1_refuse_a_jpeg_without_end_marker() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode_image(jpeg("gray")[:-2], Reading(rules=1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "PPM"])
def test_salvage_takes_the_rows_that_are_there(file_format: str) -> None:
    source = picture(1, 160, 200)
    whole = encoded(source, file_format)
    cut = whole[: len(whole) * 4 // 5]
    with pytest.raises(ImageError, match="truncated"):
        decode_image(cut)
    decoded = decode_salvaging(cut, Reading(salvage_images=True))
    assert decoded.problem is not None
    assert "truncated" in decoded.problem
    expected = np.asarray(decode_image(whole))
    there = (np.asarray(decoded.picture) == expected).all(axis=(1, 2))  # (H,), upside down in a BMP
    assert 100 < there.sum() < 200


def test_salvage_reports_no_problem_of_a_whole_picture() -> None:
    for data in (jpeg("gray"), jpeg("gray")[:-2]):
        assert decode_salvaging(data, Reading(salvage_images=True)).problem is None


def test_nothing_is_salvaged_where_nothing_can_be_seen() -> None:
    whole = encoded(picture(1, 160, 200), "PNG")
    with pytest.raises(ImageError, match="truncated"):
        decode_image(whole[:50], Reading(salvage_images=True))


def test_the_first_picture_of_several_in_one_jpeg_is_taken() -> None:
    file = io.BytesIO()
    first, second = picture(2), Image.new("RGB", (8, 8))
    first.save(file, "MPO", save_all=True, append_images=[second])
    assert decode_image(file.getvalue()).size == first.size
