"""Files that `torch.save` wrote, read without running them: zip files (since torch 1.6) and the legacy format.

The zip file holds `NAME/data.pkl`, the pickle, and `NAME/data/KEY`, the raw values of each storage. The legacy format
is a sequence: the pickles of a magic number, of a version and of the writer's machine, the pickle itself, the pickle of
the list of storage keys, and for each key the number of its values and the values.

Nothing is extracted, and members are found by their names alone, so a path in a zip file leads nowhere. Members are
raw, so no length in the file can ask for more memory than the file is long.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from imtok.interop.inert import StoredTensor, UnreadableError
from imtok.interop.unpickling import Unpickled, unpickled

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = 30  # bytes before the name of a member of a zip file
_TAR = b"ustar"


@dataclass(frozen=True)
class TorchFile:
    """A file of `torch.save`: the object in it, and where the values of each storage lie."""

    path: Path
    content: Any  # mappings, lists, plain values, Named, Inert and StoredTensor
    places: Mapping[str, tuple[int, int]]  # of each storage: the first byte, and how many bytes there are

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read the values of a tensor; raises UnreadableError where the file does not hold them."""
        values, itemsize = math.prod(stored.shape), stored.storage.dtype.itemsize
        if not values:
            return torch.empty(stored.shape, dtype=stored.storage.dtype)
        if values > stored.span:
            raise UnreadableError(f"a tensor of {stored.shape} has the same values more than once")
        start, length = self.places.get(stored.storage.key, (0, 0))
        offset, size = stored.offset * itemsize, stored.span * itemsize
        data = bytearray(size if offset + size <= length else 0)
        with self.path.open("rb") as file:
            file.seek(start + offset)
            if not data or file.readinto(data) != size:
                raise UnreadableError(f"a tensor of {stored.shape} lies outside the file; copy it again")
        return torch.frombuffer(data, dtype=stored.storage.dtype).as_strided(stored.shape, stored.stride)


def open_torch_file(path: Path) -> TorchFile:
    """Read the structure of a file that `torch.save` wrote, and no values yet.

    Raises UnreadableError where the file is damaged, of another kind, or holds anything but data.
    """
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
        file.seek(0)
        if head.startswith(b"PK"):
            return _zip_file(path, file, size)
        if head[257:262] == _TAR:
            raise UnreadableError("it is a tar, as torch wrote them before 0.1.10; save it with a newer torch")
        if not head.startswith(b"\x80"):
            raise UnreadableError("it is neither a safetensors file nor one of torch.save")
        return _legacy_file(path, file, size)


def _zip_file(path: Path, file: BinaryIO, size: int) -> TorchFile:
    try:
        archive = zipfile.ZipFile(file)
        members = {member.filename: member for member in archive.infolist()}
    except Exception as error:  # the standard library raises many kinds on a damaged directory
        raise UnreadableError(f"its zip file is damaged ({error}); copy it again") from error
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in members):
        raise UnreadableError("it is a zip file, but not one that torch.save writes (a TorchScript program is none)")
    folder = pickles[0].removesuffix("data.pkl")
    places = {
        name.removeprefix(f"{folder}data/"): _member(file, member, size)
        for name, member in members.items()
        if name.startswith(f"{folder}data/")
    }
    if (order := members.get(f"{folder}byteorder")) is not None:
        file.seek(_member(file, order, size)[0])
        _little_endian(file.read(6) == b"little")
    start, length = _member(file, members[pickles[0]], size)
    file.seek(start)
    return TorchFile(path, unpickled(file, length).content, places)


def _member(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Return first byte and length of a member, read from its own header; raises UnreadableError if it is not raw."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size != member.compress_size:
        raise UnreadableError("its zip file has compressed or encrypted members, which torch.save does not write")
    inside = 0 <= member.header_offset <= size
    file.seek(member.header_offset if inside else size)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise UnreadableError("its zip file is damaged; copy it again")
    start = member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
    if start + member.file_size > size:
        raise UnreadableError("its zip file is cut off; copy it again")
    return start, member.file_size


def _little_endian(little: bool) -> None:
    if not little:
        raise UnreadableError("its numbers are big-endian; save it on an ordinary machine")


def _legacy_file(path: Path, file: BinaryIO, size: int) -> TorchFile:
    def read() -> Unpickled:
        return unpickled(file, size - file.tell())

    if read().content != _MAGIC or read().content != _PROTOCOL:
        raise UnreadableError("it is a pickle, but not one that torch.save wrote")
    machine = read().content
    _little_endian(isinstance(machine, dict) and machine.get("little_endian") is True)
    whole, keys = read(), read().content
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnreadableError("its list of storages is damaged; copy it again")
    sizes = {key: dtype.itemsize for key, dtype in whole.storages.items()}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        start = file.tell() + 8
        count = int.from_bytes(file.read(8), "little", signed=True)
        places[key] = start, count * sizes.get(key, 0)
        if key not in sizes or count < 0 or start + places[key][1] > size:
            raise UnreadableError("its storages are cut off or damaged; copy it again")
        file.seek(start + places[key][1])
    return TorchFile(path, whole.content, places)
