"""Compressed files recognised by their first bytes, as many tars are compressed under the name `.tar`."""

from __future__ import annotations

_SIGNATURES = {
    b"\x1f\x8b": "gzip",
    b"\x1f\x9d": "compress",
    b"\x1f\xa0": "compress",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_BZIP2 = b"BZh"
_BZIP2_BLOCK = b"1AY&SY"  # after the digit of the block size; begins a block
_BZIP2_END = b"\x17rE8P\x90"  # in its place where the file is empty

_ADVICE = {
    "gzip": "unpack it to a plain tar first, by `gunzip -c FILE > NEW.tar`",
    "compress": "unpack it to a plain tar first, by `uncompress -c FILE > NEW.tar`",
    "bzip2": "unpack it to a plain tar first, by `bunzip2 -c FILE > NEW.tar`",
    "xz": "unpack it to a plain tar first, by `xz -dc FILE > NEW.tar`",
    "zstd": "unpack it to a plain tar first, by `zstd -dc FILE > NEW.tar`",
    "lz4": "unpack it to a plain tar first, by `lz4 -dc FILE > NEW.tar`",
    "7z": "unpack it into a folder first, by `7z x FILE -oNEW`",
    "rar": "unpack it into a folder first, by `unrar x FILE NEW/`",
}

SUFFIXES_OF_COMPRESSED_TARS = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4", ".tar.z"),
    *(".7z", ".rar"),
)

HEAD_BYTES = 16  # as many as `compression_of` looks at


def compression_of(head: bytes) -> str | None:
    """Name what a file is compressed with from its first `HEAD_BYTES` bytes; None where nothing known begins so."""
    if head.startswith(_BZIP2) and head[4:10] in (_BZIP2_BLOCK, _BZIP2_END):
        return "bzip2"
    return next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None)


def compression_advice(compression: str) -> str:
    """Say in half a sentence that a file is compressed, and by which command it becomes readable."""
    return f"compressed with {compression}, which cannot be read at any place; {_ADVICE[compression]}"
