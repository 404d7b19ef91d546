"""Image formats told by their first bytes."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from making import encoded, picture

from imtok.data.pixels.formats import HEAD_BYTES, image_kind, image_suffixes, looks_like_image


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_each_format_is_told_by_its_first_bytes(name: str) -> None:
    assert image_kind(encoded(picture(0), name)[:HEAD_BYTES]) == name


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (b"P5\n# Created by GIMP version 2.10.30 PNM plug-in\n64 48\n255\n\0\0", "PPM"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG2000"),
        (encoded(picture(0).convert("RGBA"), "WEBP", lossless=True)[:HEAD_BYTES], "WEBP"),
    ],
)
def test_variants_of_a_format_are_told_too(head: bytes, kind: str) -> None:
    assert image_kind(head) == kind


def _archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as into:
            into.writestr("a.png", encoded(picture(0)))
    elif kind == "tar":
        with tarfile.open(fileobj=file, mode="w") as into_tar:
            into_tar.addfile(tarfile.TarInfo("BM.png"))
    else:
        np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xd8", b"BM", b"II", b"P6"),
        b"BMW is a maker of cars, and this line is long enough for a header of a bitmap file\n",
        b"P1 is the first point, P2 the second, and so on for quite a while to come\n",
        b"P1 12 34 0 1 0 1\n",
        b"P5 is next\n",
        b"MM*M is a line of text",
        b"import numpy as np\n\nprint('RIFF')\n",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        b"%PDF-1.7\n",
        b"PAR1\x15\x04",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        struct.pack("<2sIIIIii", b"BM", 99, 7, 54, 40, 3, 3),
        gzip.compress(b"photo"),
        *map(_archive, ("zip", "tar", "npy")),
    ],
)
def test_other_files_are_not_taken_for_images(data: bytes) -> None:
    assert not looks_like_image(data[:HEAD_BYTES])


def test_rules_1_know_no_suffix_of_heic() -> None:
    assert image_suffixes(2) - image_suffixes(1) == {".heic", ".heif"}
    assert {".jpg", ".jfif", ".tiff", ".avif"} < image_suffixes(1)
