"""Configuration of the encoder and decoder of DALL-E's discrete VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from imtok.errors import ConfigError
from imtok.networks.record import NetworkRecord

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder


class DVAEConfig(NetworkRecord):
    """The encoder and decoder of DALL-E's discrete VAE (Ramesh et al., 2021); the defaults are its published sizes."""

    multipliers: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)  # width of each stage in units of `width`, finest first

    kind: Literal["dvae"] = "dvae"
    width: int = Field(256, ge=4, multiple_of=4, description="width of the finest stage; the others have 2, 4, 8 times")
    blocks: int = Field(2, ge=1, description="residual blocks a stage")
    projection: bool = Field(
        True,
        description="1x1 convolution from the encoder's features to the latents; false: the features are the latents, "
        "as in DALL-E, where the logits of a Gumbel quantizer follow",
    )

    @property
    def downsample(self) -> int:
        """See `NetworkRecord.downsample`."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def summary(self) -> str:
        """See `NetworkRecord.summary`."""
        return f"four stages of a dVAE, 2^{len(self.multipliers) - 1}"

    @property
    def features(self) -> int:
        """Channels of the encoder's last features."""
        return self.width * self.multipliers[-1]

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """See `NetworkRecord.build`; raises ConfigError where the latents would need a projection and have none."""
        from imtok.networks.dvae import DVAEDecoder, DVAEEncoder

        if not self.projection and latent_dim != self.features:
            raise ConfigError(
                f"network.projection is false: the latents are the encoder's {self.features} features (8 x width), and "
                f"the quantizer takes {latent_dim}; set network.projection=true or quantizer.dim={self.features}"
            )
        widths = [self.width * multiplier for multiplier in self.multipliers]
        encoder = DVAEEncoder(latent_dim if self.projection else None, widths=widths, blocks=self.blocks)
        return encoder, DVAEDecoder(code_dim, widths=widths, blocks=self.blocks, output_channels=output_channels)

    def code_identity(self) -> dict[str, Any]:
        """See `NetworkRecord.code_identity`; the kind stands for the range of pixels too."""
        return {"kind": self.kind, "width": self.width, "blocks": self.blocks, "projection": self.projection}
