"""Configuration of the encoder and decoder of Emu3's vision tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from imtok.errors import ConfigError
from imtok.networks.record import NetworkRecord
from imtok.networks.vqgan_config import VQGANConfig

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder

_Width = Annotated[int, Field(ge=1)]
_Stage = Annotated[int, Field(ge=0)]


class Emu3Config(NetworkRecord):
    """The encoder and decoder of Emu3 (Wang et al., 2024) for still images; the defaults are its published sizes."""

    kind: Literal["emu3"] = "emu3"
    channels: tuple[_Width, ...] = Field(
        (256, 512, 512, 1024),
        min_length=1,
        description="width of each stage, finest first; the grid halves between stages",
    )
    stem_channels: int | None = Field(
        None, ge=1, description="width of the encoder's first convolution; left out: that of the first stage"
    )
    blocks: int = Field(2, ge=1, description="residual blocks a stage of the encoder, and as many over time")
    attention_stages: tuple[_Stage, ...] = Field(
        (3,), description="stages, from 0, with self-attention after each block"
    )
    latent_channels: int = Field(4, ge=1, description="channels of the layers over time; those of a code are as many")
    time_layers: int = Field(2, ge=0, description="layers that halve time; an image is 2 ** time_layers equal frames")
    norm_groups: int = Field(32, ge=1, description="groups of each group norm")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.spatial  # refuses what it cannot be built with
        return self

    @property
    def spatial(self) -> VQGANConfig:
        """The network of each frame."""
        return VQGANConfig(
            channels=self.channels,
            stem_channels=self.stem_channels,
            blocks=self.blocks,
            attention_stages=self.attention_stages,
            latent_channels=None,
            norm_groups=self.norm_groups,
            spatial_norm=True,
        )

    @property
    def downsample(self) -> int:
        """See `NetworkRecord.downsample`."""
        return self.spatial.downsample

    @property
    def summary(self) -> str:
        """See `NetworkRecord.summary`."""
        return self.spatial.summary

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """See `NetworkRecord.build`; raises ConfigError where codes have other channels than the layers over time."""
        from imtok.networks.emu3 import Emu3Decoder, Emu3Encoder

        if code_dim != self.latent_channels:
            raise ConfigError(
                f"codes have {code_dim} channels and network.latent_channels is {self.latent_channels}; "
                f"Emu3's decoder has one stack of layers for both, so set quantizer.dim={self.latent_channels}"
            )
        return Emu3Encoder(latent_dim, self), Emu3Decoder(self, output_channels)

    def code_identity(self) -> dict[str, Any]:
        """See `NetworkRecord.code_identity`."""
        return {
            "kind": self.kind,
            "spatial": self.spatial.code_identity(),
            "latent_channels": self.latent_channels,
            "time_layers": self.time_layers,
        }
