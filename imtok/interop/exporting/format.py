"""The contract of a format that tokenizers are exported to: which files, and how they are run without imtok."""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample, Q codebooks.

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from imtok.errors import ImtokError
from imtok.tokenizer import Tokenizer

Axis = int | str  # a fixed length, or the name of a free one: "batch", "h", "8*h"


@dataclass(frozen=True)
class Layout:
    """Shapes of the images and the codes that an exported tokenizer takes and gives."""

    images: tuple[Axis, ...]  # (B, 3, H, W)
    codes: tuple[Axis, ...]  # (B, h, w), (B, h, w, Q) for Q > 1 codebooks
    least_grid: int = 1  # least free h and w

    @property
    def free_size(self) -> bool:
        """Whether images of other heights and widths may follow."""
        return isinstance(self.images[2], str)


class Runtime(ABC):
    """Exported files, run by the library that owns their format."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) float32 in [-1, 1] to codes int64, in the shape that imtok gives them."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes int64 to images (B, 3, H, W) float32."""


class Format(ABC):
    """One format."""

    name: ClassVar[str]  # as `imtok export --to` takes it
    runtime: ClassVar[str]  # distribution that runs the files, which checks them
    packages: ClassVar[tuple[str, ...]]  # distributions that are needed beside torch

    def misfit(self, tokenizer: Tokenizer) -> str:
        """Return the first option of a tokenizer that the format cannot hold, in a clause; empty where all fits."""
        del tokenizer
        return ""

    @abstractmethod
    def write(self, tokenizer: Tokenizer, folder: Path) -> Layout:
        """Write the files into an empty folder; return the shapes that they take."""

    @abstractmethod
    def read(self, folder: Path) -> Runtime:
        """Load the files that `write` has written."""

    def versions(self) -> dict[str, str]:
        """Return the installed version of each package; raises ImtokError where one is missing."""
        found = {}
        for package in ("torch", *self.packages):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                raise ImtokError(
                    f"--to {self.name} needs {package}, which is not installed; pip install 'imtok[export]'"
                ) from None
        return found
