"""PNG files without the chunks that are too long for Pillow, which are no damage.

Pillow limits what text and profiles may unfold to, and refuses a picture beyond it. Such chunks are taken out here
before it sees them, so that its limits stand and a compressed bomb unfolds to a bounded size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_MAX_PROFILE = 16 * 2**20  # bytes unfolded


def without_texts(data: bytes) -> tuple[bytes, bytes | None]:
    """Return a PNG without text and profile, and the profile, which is None where there is none or it is broken."""
    profile, kept = None, [_SIGNATURE]
    for name, start, end in _chunks(data):
        if name == b"iCCP":
            profile = _unfolded(data[start + 8 : end - 4])
        elif name not in _TEXTS:
            kept.append(data[start:end])
    return b"".join(kept), profile


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk; the last may be cut."""
    place = len(_SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        yield name, place, min(len(data), place + 12 + length)
        place += 12 + length


def _unfolded(chunk: bytes) -> bytes | None:
    """Unfold the profile of an iCCP chunk: a name, a zero, the method 0, then zlib data."""
    packed = chunk[chunk.find(b"\0") + 2 :]
    unfolding = zlib.decompressobj()
    try:
        profile = unfolding.decompress(packed, _MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unfolding.eof else None
