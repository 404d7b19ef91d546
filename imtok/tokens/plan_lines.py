"""Lines of a plan for images, in the millions: the bytes of `PlanEntry` without a record for each.

    {"unit":4882,"key":"n00000007/00007042.jpg","bytes":104711}

A record and its line take 10 us, a line of this module .4 us. A key stands as it is where JSON escapes no character of
it, which the keys of a block show together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring

ImageRow = tuple[int, bytes, int]  # unit, key as UTF-8, bytes

_ROW = re.compile(rb'\{"unit":(0|[1-9]\d*),"key":"([^"\\\x00-\x1f]*)","bytes":(-?(?:0|[1-9]\d*))\}\n')
_ESCAPED = bytes(range(0x20)) + b'"\\'  # what JSON escapes in text that is not held to ASCII


def image_lines(blocks: Iterable[tuple[list[bytes], list[int]]], unit_size: int, first_unit: int) -> Iterator[bytes]:
    """Yield the lines of images in order, those of a block at once; a block is keys as UTF-8, and as many bytes."""
    position = first_unit * unit_size
    for keys, sizes in blocks:
        units = [number // unit_size for number in range(position, position + len(keys))]
        position += len(keys)
        texts = keys if _is_plain(keys) else [_escaped(key) for key in keys]
        yield b"".join(map(b'{"unit":%d,"key":"%b","bytes":%d}\n'.__mod__, zip(units, texts, sizes, strict=True)))


def image_row(line: bytes) -> ImageRow | None:
    """Return what the line of an image says, None for other lines, for escaped keys and for damage."""
    match = _ROW.fullmatch(line)
    if match is None:
        return None
    unit, key, size = match.groups()
    return (int(unit), key, int(size)) if key.isascii() or _is_utf8(key) else None


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(keys: list[bytes]) -> bool:
    """Return whether JSON writes these keys as they are."""
    whole = b"".join(keys)
    return len(whole.translate(None, _ESCAPED)) == len(whole)


def _escaped(key: bytes) -> bytes:
    return encode_basestring(key.decode())[1:-1].encode()
