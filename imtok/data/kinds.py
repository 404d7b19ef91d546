"""Kinds of files by their names: images, containers of images, and what is certainly neither.

Only a file whose suffix is on none of these lists is worth a look at its first bytes.
"""

from __future__ import annotations

import os
from typing import Literal

from imtok.data.archives.compression import SUFFIXES_OF_COMPRESSED_TARS
from imtok.data.pixels.formats import image_suffixes
from imtok.data.reading import RULES, Rules

FileKind = Literal["image", "container", "compressed", "other", "unknown"]

CONTAINER_SUFFIXES = frozenset({".tar", ".zip", ".parquet"})

# Files that data sets consist of beside their images. Raw photographs and slide scans begin like a TIFF or hold a
# JPEG, but what would be read of them is their thumbnail.
_OTHER_SUFFIXES = frozenset(
    f".{name}"
    for line in (
        "txt json jsonl ndjson csv tsv xml html htm md rst log yaml yml toml ini cfg conf caption cls url pdf svg",
        "py pyc ipynb sh c h cpp js css npy npz pt pth ckpt bin safetensors onnx pkl pickle h5 hdf5 mat",
        "arrow feather db sqlite sqlite3 mdb lmdb tfrecord record idx index lock sha256 md5",
        "mp4 mov avi mkv webm mpg mpeg mp3 wav flac ogg thm gz bz2 xz zst lz4 rar 7z",
        "dng nef nrw cr2 cr3 crw arw srf sr2 orf rw2 raf pef srw 3fr iiq x3f raw psd psb ai eps svs ndpi scn",
        "part partial crdownload download tmp temp bak orig swp",
    )
    for name in line.split()
)


def suffix_of(name: str) -> str:
    """Return the last suffix of a name in lower case, with its dot; nothing where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (a Path per file is slow for millions)


def kind_of(name: str, rules: Rules = RULES) -> FileKind:
    """Return what a file is, from its name alone; `unknown` asks for a look at its first bytes."""
    suffix = suffix_of(name)
    if suffix in image_suffixes(rules):
        return "image"
    if suffix in CONTAINER_SUFFIXES:
        return "container"
    if is_compressed_name(name):
        return "compressed"
    # ExifTool and editors keep the picture of before as x.jpg_original and x.jpg~.
    if suffix in _OTHER_SUFFIXES or suffix.endswith(("_original", "~")):
        return "other"
    return "unknown"


def container_kind_of(name: str, head: bytes = b"") -> str:
    """Return the suffix that stands for the kind of a container: its own, or that of what the first bytes show."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ".zip"
    if head.startswith(b"PAR1"):
        return ".parquet"
    return ".tar" if head[257:262] == b"ustar" else suffix_of(name)


def is_compressed_name(name: str) -> bool:
    """Return whether a name is that of a compressed tar or of an archive that imtok does not read."""
    return name.lower().endswith(SUFFIXES_OF_COMPRESSED_TARS)


def is_hidden(name: str) -> bool:
    """Return whether a member of an archive is hidden, or belongs to what macOS adds beside files."""
    return name.rpartition("/")[2].startswith(".") or name.startswith("__MACOSX/") or "/__MACOSX/" in name
