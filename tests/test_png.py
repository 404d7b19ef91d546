"""PNGs with long texts and profiles."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from making import encoded, picture
from PIL import PngImagePlugin

from imtok.data.images import decode_image
from imtok.data.pixels.png import without_texts
from imtok.data.reading import Reading
from imtok.errors import ImageError


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


LONG = b"a" * (2 * PngImagePlugin.MAX_TEXT_CHUNK)
CHUNKS = {
    "zTXt": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "tEXt": chunk(b"tEXt", b"prompt\0" + LONG),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
    "a bomb": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(2**26))),
    "a bomb as profile": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**26))),
}


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_long_chunks_are_no_damage(kind: str, place: str) -> None:
    source = picture(0)
    whole = encoded(source)
    at = 33 if place == "before" else whole.rindex(b"IEND") - 4
    assert np.array_equal(decode_image(whole[:at] + CHUNKS[kind] + whole[at:]), source)


def test_rules_1_refuse_a_long_text() -> None:
    whole = encoded(picture(0))
    with pytest.raises(ImageError, match="corrupt"):
        decode_image(whole[:33] + CHUNKS["zTXt"] + whole[33:], Reading(rules=1))


def test_a_long_profile_is_kept_for_the_colours() -> None:
    whole = encoded(picture(0))
    assert without_texts(whole[:33] + CHUNKS["iCCP"] + whole[33:]) == (whole, LONG)


def test_pixels_cut_behind_a_long_text_are_truncated() -> None:
    whole = encoded(picture(0))
    with pytest.raises(ImageError, match="truncated"):
        decode_image((whole[:33] + CHUNKS["zTXt"] + whole[33:])[:-60])
