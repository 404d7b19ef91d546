"""Published weights: their place in torch's cache, how they are fetched, and how a file of them is read.

A file keeps the name under which it is published, in which the first hexadecimal digits of its SHA-256 stand last. It
is fetched under another name, compared with these digits, and only then renamed: a partial file never has the name.
Files are untrusted. torch reads them with `weights_only`, so that no pickled code runs, and shapes are compared before
a network takes them.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor

from imtok.errors import ConfigError, disk_errors

_TIMEOUT = 10.0  # seconds without an answer after which a fetch is given up


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights as its authors publish it."""

    title: str  # "VGG16's weights": at the place of a subject, in messages
    url: str

    @property
    def cached(self) -> Path:
        """Its place in torch's cache, whether it is there or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    @property
    def digest(self) -> str:
        """The first digits of its SHA-256, as its name has them."""
        return self.cached.stem.rpartition("-")[2]


def fetched(weights: PublishedWeights, *, needed_by: str, remedy: str) -> Path:
    """Return the file in torch's cache; fetch it where it is absent.

    Raises ConfigError where it cannot be fetched, with `needed_by` and `remedy` in its text, and DiskError where the
    disk has no room for it.
    """
    file = weights.cached
    if file.is_file():
        return file
    try:
        with disk_errors(file), _socket_timeout(_TIMEOUT):
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), weights.digest, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # RuntimeError: the hash is another
        raise ConfigError(
            f"{file}: {weights.title}, which {needed_by}, are not there and cannot be fetched from {weights.url} "
            f"({_reason(error)}); {remedy}"
        ) from error
    return file


def read_weights(path: Path, url: str) -> dict[str, Tensor]:
    """Read a state dict, .safetensors or what `torch.save` wrote, on the CPU; the file is mapped where it can be.

    Raises ConfigError, with the advice to put the file at `url` in its place, where it holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        mapped = zipfile.is_zipfile(path)  # files from before torch 1.6 cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return {str(key): _tensor(value) for key, value in state.items()}
    except Exception as error:  # a damaged pickle can end in any
        raise ConfigError(f"{path}: cannot be read as weights; put {url} in its place") from error


def require_shapes(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, network: str, url: str, prefix: str = ""
) -> None:
    """Raise ConfigError, which names the first difference, where the tensors have other names or shapes than expected.

    `prefix` is what names have before them in the file.
    """
    shapes, needed = ({key: tuple(value.shape) for key, value in each.items()} for each in (found, expected))
    wrong = sorted(key for key in needed.keys() | shapes.keys() if needed.get(key) != shapes.get(key))
    if wrong:
        raise ConfigError(
            f"{path}: holds another network than {network}, {prefix}{wrong[0]} is {_form(shapes, wrong[0])}, expected "
            f"{_form(needed, wrong[0])}; name {network}'s, as {url} has it"
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} in place of a tensor")
    return value


def _form(shapes: Mapping[str, tuple[int, ...]], key: str) -> str:
    if key not in shapes:
        return "absent"
    return " x ".join(map(str, shapes[key])) or "a scalar"


def _reason(error: Exception) -> str:
    """Give the reason of an error in one line: the text of an OSError, also of one that urllib has wrapped."""
    cause = getattr(error, "reason", error)
    return re.sub(r"\s+", " ", str(getattr(cause, "strerror", None) or cause)).strip()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for the block: torch's download sets none, and waits for ever where packets are dropped."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
