"""The images of one whole shard, read by webdataset's tar iterator.

The iterator gives the regular members one after the other. It takes a cut tar for a complete one, and passes over
links, devices and whatever follows the end-of-archive blocks, all without a word. So the headers are read first, by
the reader of indexed tars: they say whether the shard is whole, which members are images, where links lead, and what
the iterator has to give. Keys and bytes are therefore those of the same tar read by its index.

Two of webdataset's pieces are not used. `group_by_keys` makes one sample of `img.1.jpg` and `img.2.jpg`, and a shard
here is a list of images. `tar_file_expander` leaves out folders called `__x__`, and has no option for that.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from webdataset.tariterators import meta_prefix, meta_suffix, tar_file_iterator

from imtok.data.archives.compression import HEAD_BYTES, compression_advice, compression_of
from imtok.data.archives.members import ArchiveImage, Lost, Members, Part
from imtok.data.archives.tars import Stored, read_archives
from imtok.data.containers import LostImage, as_text
from imtok.data.reading import Reading


class DamagedShard(Exception):
    """A file that is no whole tar; its text is the reason, and `advice` says what to do, unless the text does."""

    def __init__(self, reason: str, advice: str = "copy or write this shard again") -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True)
class ShardMembers:
    """The contents of a shard."""

    images: list[tuple[str, bytes]]  # names in the tar, in its order
    lost: dict[str, str]  # reasons by the names of images that cannot be had, such as links to nothing
    notes: tuple[str, ...]  # what a person has to know about the shard


def read_members(file: BinaryIO, size: int, reading: Reading) -> ShardMembers:
    """Read the images of a tar of `size` bytes; raises DamagedShard where it is not whole, OSError as the file does."""
    if size == 0:
        raise DamagedShard("the file is empty (0 bytes)")
    head = file.read(tarfile.BLOCKSIZE)
    compression = compression_of(head[:HEAD_BYTES])
    if compression is not None:
        raise DamagedShard(compression_advice(compression), advice="")
    if not any(head):  # a file that was made long and never filled looks like a tar without members
        raise DamagedShard("it begins with zeros, as a tar without members does")
    members = _Recorded("", reading)
    starts, problem = read_archives(file, size, members)
    if problem is not None:
        raise DamagedShard(problem)
    container = members.container(size, None)
    needed = {image.part for image in container.images if isinstance(image, ArchiveImage)}
    found = _contents(file, starts, members.regular, needed)
    images = [(image.key, found[image.part]) for image in container.images if isinstance(image, ArchiveImage)]
    lost = {image.key: f"{image.reason}: {image.detail}" for image in container.images if isinstance(image, LostImage)}
    return ShardMembers(images, lost, container.notes)


class _Recorded(Members):
    """Members that also keep the order of the regular ones."""

    def __init__(self, address: str, reading: Reading) -> None:
        super().__init__(address, reading)
        self.regular: list[tuple[str, Part | Lost]] = []  # as webdataset's iterator gives them

    def add(self, name: str, part: Part | Lost, head: Callable[[], bool] | None = None) -> None:
        """Add a file."""
        super().add(name, part, head)
        if not isinstance(part, Lost) or part.reason == "too large":  # a sparse one; others lost are no files
            self.regular.append((name, part))


def _contents(
    file: BinaryIO, starts: list[int], regular: list[tuple[str, Part | Lost]], needed: set[Part]
) -> dict[Part, bytes]:
    """Read the bytes of the `needed` members; raises DamagedShard where the iterator gives others than the headers."""
    left = iter([(name, part) for name, part in regular if not _is_metadata(name)])
    found: dict[Part, bytes] = {}
    selected: list[Part] = []

    def select(name: str) -> bool:
        """Compare a member with the headers' next one; say whether its bytes are needed."""
        expected, part = next(left, (None, None))
        if name != expected:
            raise DamagedShard(f"its members come out of order, {as_text(name)} first")
        if part not in needed:
            return False
        selected.append(part)
        return True

    for start in starts:
        file.seek(start)
        try:
            for sample in tar_file_iterator(file, skip_meta=None, select_files=select):
                found[selected[-1]] = sample["data"]
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise DamagedShard(f"damaged ({type(error).__name__})") from error
    for name, part in regular:
        if _is_metadata(name) and isinstance(part, Stored) and part in needed:
            file.seek(part.offset)
            found[part] = file.read(part.size)
    if missing := needed - found.keys():
        raise DamagedShard(f"{len(missing)} of its members did not come out")
    return found


def _is_metadata(name: str) -> bool:
    """Say whether webdataset takes a member for its own metadata, as `__index__`, and passes over it."""
    return "/" not in name and name.startswith(meta_prefix) and name.endswith(meta_suffix)
