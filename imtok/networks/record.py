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
    def downsample(self) -> int:
        """Image pixels per latent position, along one side."""
        raise NotImplementedError

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
