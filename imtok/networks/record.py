"""The base of all networks' configuration records: downsampling, identity and construction.

Records import no torch, so that `imtok --help` stays quick; `build` imports the network's module when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from imtok.records import Record

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder


class NetworkRecord(Record):
    """Configuration of an encoder and a decoder; each kind has a record of its own."""

    # Fields by the names they had before; files and settings may still use these.
    former_names: ClassVar[dict[str, str]] = {}

    kind: str

    @property
    def downsample(self) -> int | None:
        """Image pixels per latent position, along one side; None where codes are a sequence, and no places of a grid.

        A kind of such codes overrides `only_size` and `grid`.
        """
        raise NotImplementedError

    @property
    def only_size(self) -> int | None:
        """The side of the only images that the networks take; None where they take multiples of `downsample`."""
        return None

    @property
    def sizes(self) -> str:
        """The sizes of images that the networks take, in a few words."""
        if self.only_size is not None:
            return f"{self.only_size}x{self.only_size} alone"
        return f"multiples of {self.downsample} (the downsampling)"

    def takes(self, height: int, width: int) -> bool:
        """Return whether images of this size can be encoded."""
        if self.only_size is not None:
            return height == width == self.only_size
        return self.downsample is not None and height % self.downsample == width % self.downsample == 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the grid of codes (h, w) for images of a size that the networks take; (1, n) for a sequence of n."""
        if self.downsample is None:
            raise NotImplementedError
        return height // self.downsample, width // self.downsample

    @property
    def summary(self) -> str:
        """The reason for the downsampling, in a few words for a person."""
        return self.kind

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """Return an encoder to `latent_dim` channels and a decoder from `code_dim`, their weights newly drawn.

        The decoder gives `output_channels` for each pixel.
        """
        raise NotImplementedError

    def code_identity(self) -> dict[str, Any]:
        """Return what decides codes beside the weights; the tokenizer's fingerprint hashes it.

        A kind names its keys one by one. So a field added later changes no fingerprint at its default.
        """
        raise NotImplementedError
