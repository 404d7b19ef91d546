"""JPEG files without an end marker: whether all their pixels are there.

libjpeg fills in zeros for bits that are missing, and Pillow passes no warning on. So such a file is decoded with
several endings after its last byte. Where all of them give the same picture, no pixel depends on bits that are
missing. Two things escape that test and are counted from the headers: restart markers, since libjpeg skips all bytes
before one it waits for, and scans that have not begun.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_END = b"\xff\xd9"
_FRAMES = {0xC0, 0xC1, 0xC2}  # sequential and progressive with Huffman codes
_ZEROS = 4  # as many at the end are filled in by a broken copy


@dataclass
class _Layout:
    """The scans of a JPEG as its headers promise them."""

    size: tuple[int, int] = (0, 0)  # width, height
    progressive: bool = False
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # by component
    missing: dict[int, list[int]] = field(default_factory=dict)  # bits not yet coded of each coefficient, by component
    interval: int = 0  # blocks between restart markers, 0 for none
    restarts: int = 0  # expected in the last scan
    last_scan: int = 0  # where its data begin

    def frame(self, body: bytes, progressive: bool) -> None:
        self.progressive = progressive
        height, width, count = struct.unpack(">HHB", body[1:6])
        self.size = (width, height)
        for place in range(6, 6 + 3 * count, 3):
            component, factors = body[place], body[place + 1]
            self.sampling[component] = (factors >> 4, factors & 15)
            self.missing[component] = [99] * 64

    def scan(self, body: bytes, data_start: int) -> None:
        count = body[0]
        components = [body[1 + 2 * place] for place in range(count)]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        if not self.progressive:
            first, last, bits = 0, 63, 0
        for component in components:
            self.missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
        blocks = self._blocks(components)
        self.restarts = (blocks - 1) // self.interval if self.interval else 0
        self.last_scan = data_start

    def _blocks(self, components: list[int]) -> int:
        """Count the units between which restart markers are counted."""
        across, down = (max(factors[axis] for factors in self.sampling.values()) for axis in (0, 1))
        width, height = self.size
        if len(components) > 1:
            return _up(width, 8 * across) * _up(height, 8 * down)
        own = self.sampling[components[0]]
        return _up(_up(width * own[0], across), 8) * _up(_up(height * own[1], down), 8)

    def complete(self) -> bool:
        return bool(self.missing) and not any(any(bits) for bits in self.missing.values())


def endings(data: bytes) -> Iterator[bytes]:
    """Yield the JPEG `data` with several endings; its pixels are all there if all of these give one picture.

    Yields nothing where the headers tell that data are missing.
    """
    try:
        layout = _layout(data)
    except (IndexError, KeyError, ValueError, struct.error):
        return
    if not layout.complete() or _restarts(data[layout.last_scan :]) < layout.restarts:
        return
    whole = _without_filling(data)
    noise = random.Random(0)
    fillings = [b"", b"\xff\0" * 64, *(bytes(noise.randrange(255) for _ in range(256)) for _ in range(6))]
    yield from (whole + filling + _END for filling in fillings)


def with_end(data: bytes) -> bytes:
    """Return a JPEG with an end marker after its last byte, so that what is there can be decoded."""
    return data.rstrip(b"\xff") + _END


def _without_filling(data: bytes) -> bytes:
    """Drop zeros that a broken copy left at the end, and complete a last byte of 255."""
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros >= _ZEROS:
        data = data.rstrip(b"\0")
    return data.rstrip(b"\xff")


def _restarts(scan: bytes) -> int:
    return sum(scan.count(bytes((255, marker))) for marker in range(0xD0, 0xD8))


def _layout(data: bytes) -> _Layout:
    """Read the headers of frame, restart interval and scans; raises ValueError on what is not understood."""
    layout, place = _Layout(), 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError("no marker where one is expected")
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        body, following = data[place + 4 : place + 2 + length], place + 2 + length
        if marker in _FRAMES:
            layout.frame(body, marker == 0xC2)
        elif marker == 0xDD:
            layout.interval = struct.unpack(">H", body[:2])[0]
        elif marker == 0xDA:
            layout.scan(body, following)
            following = _end_of_scan(data, following)
        place = following
    return layout


def _end_of_scan(data: bytes, place: int) -> int:
    """Find the marker after the data of a scan; the end of `data` where there is none."""
    while True:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data):
            return len(data)
        if data[place + 1] != 0 and not 0xD0 <= data[place + 1] <= 0xD7 and data[place + 1] != 0xFF:
            return place
        place += 1 if data[place + 1] == 0xFF else 2


def _up(value: int, step: int) -> int:
    return -(-value // step)
