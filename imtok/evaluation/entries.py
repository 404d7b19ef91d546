"""The entries of a table: tokenizers, and image codecs that are given the bytes of a tokenizer's codes."""

# Axes: B batch, S side of the square, K codes.

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imtok.config.origin import Origin
from imtok.devices import Precision, autocast
from imtok.evaluation.codecs import Codec
from imtok.evaluation.folder import Cell, Times
from imtok.evaluation.metric import Metric
from imtok.evaluation.protocols import Protocol
from imtok.evaluation.quality import Measurement
from imtok.tokenizer import Tokenizer


@dataclass(frozen=True)
class Restored:
    """A batch as it came back."""

    images: Tensor  # (B, 3, S, S), floats of a decoder or uint8 of a codec
    times: Times
    codes: Tensor | None = None  # None for a codec
    file_bytes: tuple[int, ...] = ()  # (B,) of a codec's files


@dataclass(frozen=True)
class NamedTokenizer:
    """A tokenizer on its device, with the hashes that identify it."""

    name: str  # as the caller gave it
    tokenizer: Tokenizer
    fingerprint: str
    files_sha256: str  # over its files, the decoder included

    @classmethod
    def of(cls, name: str, tokenizer: Tokenizer) -> NamedTokenizer:
        """Take a loaded tokenizer."""
        digest = hashlib.sha256()
        for file, data in sorted(tokenizer.files().items()):
            digest.update(f"{file}\0{len(data)}\0".encode())
            digest.update(data)
        return cls(name, tokenizer, tokenizer.fingerprint, digest.hexdigest())

    @property
    def origin(self) -> Origin | None:
        """The published checkpoint that it was imported from."""
        return self.tokenizer.config.origin

    def cell(self, protocol: Protocol) -> Cell:
        """Return the cell of this tokenizer under a protocol."""
        return Cell(protocol.name, self.files_sha256)

    def empty(self, metrics: Sequence[Metric]) -> Measurement:
        """Return an empty measurement by empty metrics."""
        return Measurement(metrics, num_codes=self.tokenizer.num_codes, num_codebooks=self.tokenizer.num_codebooks)

    def restore(self, protocol: Protocol, pixels: Tensor, precision: Precision) -> Restored:
        """Encode and decode squares (B, 3, S, S) uint8."""
        device, started = self.tokenizer.device, time.perf_counter()
        with autocast(device, precision):
            codes = self.tokenizer.encode(protocol.to_input(pixels))
            _wait(device)
            encoded = time.perf_counter()
            decoded = self.tokenizer.decode(codes, clamp=False)
        _wait(device)
        return Restored(decoded, Times(encoded - started, time.perf_counter() - encoded, len(pixels)), codes)

    def bytes_of_codes(self, size: int) -> float:
        """Return the bytes of an image's codes at log2 K bits each, for squares of this size."""
        codes = self.tokenizer.encode(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        return codes.numel() * math.log2(self.tokenizer.num_codes) / 8


@dataclass(frozen=True)
class NamedCodec:
    """An image codec in a number of bytes for each image."""

    codec: Codec
    allowed: float  # bytes of a file
    fingerprint = ""
    origin = None

    @property
    def name(self) -> str:
        """The codec's name for a table."""
        return self.codec.label

    @property
    def files_sha256(self) -> str:
        """SHA-256 of what decides its files."""
        return hashlib.sha256(f"{self.codec.name} {self.codec.version} {self.allowed}".encode()).hexdigest()

    def cell(self, protocol: Protocol) -> Cell:
        """Return the cell of this codec under a protocol."""
        return Cell(protocol.name, self.files_sha256)

    def empty(self, metrics: Sequence[Metric]) -> Measurement:
        """Return an empty measurement by empty metrics; a codec has no codes to count."""
        return Measurement(metrics, num_codes=1)

    def restore(self, protocol: Protocol, pixels: Tensor, precision: Precision) -> Restored:
        """Write and read back squares (B, 3, S, S) uint8."""
        del protocol, precision
        coded = self.codec.restore(pixels, self.allowed)
        return Restored(coded.restored, Times(), file_bytes=tuple(coded.sizes.tolist()))


Entry = NamedTokenizer | NamedCodec


def _wait(device: torch.device) -> None:
    """Wait until a GPU has computed, so that times are those of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
