"""Compressed files told by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from imtok.data.archives.compression import HEAD_BYTES, compression_advice, compression_of

PACKED = {
    "gzip": gzip.compress(b"tar"),
    "bzip2": bz2.compress(b"tar"),
    "xz": lzma.compress(b"tar"),
    "zstd": bytes.fromhex("28b52ffd") + bytes(12),
    "lz4": bytes.fromhex("04224d18") + bytes(12),
    "7z": bytes.fromhex("377abcaf271c") + bytes(12),
    "rar": b"Rar!\x1a\x07\x01\x00",
    "compress": bytes.fromhex("1f9d90") + bytes(12),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_compressed_file_is_named_with_its_command(name: str) -> None:
    assert compression_of(PACKED[name][:HEAD_BYTES]) == name
    assert name in compression_advice(name)
    assert "FILE" in compression_advice(name)


def test_an_empty_bzip2_is_one() -> None:
    assert compression_of(bz2.compress(b"")[:HEAD_BYTES]) == "bzip2"


@pytest.mark.parametrize(
    "head", [b"", b"\x1f", b"BZh_name.jpg\0\0\0\0", b"PK\x03\x04", b"a.jpg\0", b"\xff\xd8\xff\xe0"]
)
def test_images_zips_and_tars_are_not_compressed(head: bytes) -> None:
    assert compression_of(head) is None
