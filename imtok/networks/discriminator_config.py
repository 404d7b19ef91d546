"""Configuration of the discriminators of adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from imtok.records import Record

if TYPE_CHECKING:
    from imtok.networks.base import Discriminator

_POOL = 16  # logits a side after MaskBit's pooling


class DiscriminatorConfig(Record):
    """The network that separates reconstructions from images."""

    kind: Literal["patchgan", "stylegan", "maskbit"] = "patchgan"
    channels: int = Field(64, ge=4, description="width of its first layer; of stylegan the greatest width")
    layers: int = Field(
        3, ge=1, le=8, description="strided layers of patchgan, stages of maskbit; stylegan's follow from the crop"
    )
    norm: Literal["group", "batch", "act", "none"] = Field("group", description="normalisation of patchgan")
    spectral_norm: bool = Field(False, description="divide each weight by its largest singular value")

    @property
    def has_norm(self) -> bool:
        """The network normalises features, by weights of its own."""
        return self.kind == "maskbit" or (self.kind == "patchgan" and self.norm != "none")

    def build(self, size: int) -> Discriminator:
        """Return the network for crops of `size` pixels; raises ValueError where they are too small for it."""
        network = self._build_plain(size)
        if self.spectral_norm:
            from imtok.networks.spectral_norm import add_spectral_norm

            add_spectral_norm(network)
        return network

    def _build_plain(self, size: int) -> Discriminator:
        if self.kind == "stylegan":
            from imtok.networks.stylegan import StyleGANDiscriminator

            return StyleGANDiscriminator(size, channels=self.channels)
        if self.kind == "maskbit":
            from imtok.networks.maskbit import MaskBitDiscriminator

            # Crops too small for its pooling do without, as in Open-MAGVIT2.
            pool = _POOL if size >= _POOL << self.layers else None
            return MaskBitDiscriminator(channels=self.channels, layers=self.layers, pool=pool)
        from imtok.networks.patchgan import PatchDiscriminator

        return PatchDiscriminator(channels=self.channels, layers=self.layers, norm=self.norm)
