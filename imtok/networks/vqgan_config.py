"""Configuration of VQGAN's residual encoder and decoder, with the options of the published tokenizers built on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from imtok.networks.record import NetworkRecord

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder

ImageRange = Literal["-1..1", "0..1"]
Downsampling = Literal["strided", "strided_symmetric", "average"]
Upsampling = Literal["nearest", "depth_to_space"]
Shortcut = Literal["input", "output"]

_Width = Annotated[int, Field(ge=1)]
_Stage = Annotated[int, Field(ge=0)]


class VQGANConfig(NetworkRecord):
    """VQGAN's encoder and decoder (Esser et al., 2021); the defaults are the published network of f16.

    `downsampling`: `strided` pads right and below only, `strided_symmetric` on all sides (Open-MAGVIT2), `average` is
    a mean of 2 x 2 positions (MaskGIT). `upsampling`: `nearest` repeats pixels before a convolution, `depth_to_space`
    spreads the channels of one (Open-MAGVIT2). `shortcut`: the 1 x 1 convolution of a block that changes its width
    reads the block's input, or its output (MaskGIT, as 1d-tokenizer has it).
    """

    kind: Literal["vqgan"] = "vqgan"
    channels: tuple[_Width, ...] = Field(
        (128, 128, 256, 256, 512),
        min_length=1,
        description="width of each stage, finest first; the grid halves between stages",
    )
    stem_channels: int | None = Field(
        None, ge=1, description="width of the encoder's first convolution; left out: that of the first stage"
    )
    blocks: int = Field(2, ge=1, description="residual blocks a stage of the encoder")
    attention_stages: tuple[_Stage, ...] = Field(
        (4,), description="stages of the encoder, from 0, with self-attention after each block"
    )
    middle_blocks: int = Field(2, ge=1, description="residual blocks at the lowest resolution, after the last stage")
    middle_attention: bool = Field(True, description="self-attention after the first of the middle blocks")
    latent_channels: int | None = Field(
        256, ge=1, description="channels between the network and the 1x1 convolutions around the quantizer; null: none"
    )
    decoder_channels: tuple[_Width, ...] | None = Field(None, description="left out: channels")
    decoder_blocks: int | None = Field(None, ge=1, description="left out: one more than blocks")
    decoder_attention_stages: tuple[_Stage, ...] | None = Field(None, description="left out: attention_stages")
    norm_groups: int = Field(32, ge=1, description="groups of each group norm")
    norm_eps: float = Field(1e-6, gt=0)
    last_kernel: Literal[1, 3] = Field(3, description="kernel of the encoder's last convolution")
    bias: bool = Field(True, description="biases in the residual blocks and in the encoder's first convolution")
    downsampling: Downsampling = "strided"
    upsampling: Upsampling = "nearest"
    shortcut: Shortcut = "input"
    adaptive_norm: bool = Field(False, description="each decoder stage is scaled by statistics of the codes first")
    spatial_norm: bool = Field(
        False, description="each norm of the decoder is scaled and shifted by the code at its position (MoVQ)"
    )
    image_range: ImageRange = Field("-1..1", description="range that the network's own images lie in")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decoder_channels is not None and len(self.decoder_channels) != len(self.channels):
            raise ValueError(
                f"decoder_channels has {len(self.decoder_channels)} stages and channels {len(self.channels)}; give as "
                "many, since images come back at their size"
            )
        if self.spatial_norm and self.adaptive_norm:
            raise ValueError("spatial_norm and adaptive_norm both scale the decoder by the codes; give one of them")
        for name in ("attention_stages", "decoder_attention_stages"):
            beyond = [stage for stage in getattr(self, name) or () if stage >= len(self.channels)]
            if beyond:
                raise ValueError(
                    f"{name} has stage {beyond[0]}, the last of {len(self.channels)} stages is number "
                    f"{len(self.channels) - 1}"
                )
        widths = [self.stem_width, *self.channels, *self.decoder_widths]
        uneven = [width for width in widths if width % self.norm_groups]
        if uneven:
            raise ValueError(
                f"{uneven[0]} channels do not divide into norm_groups {self.norm_groups}; give widths that do, or "
                "fewer groups"
            )
        return self

    @property
    def stem_width(self) -> int:
        """Channels of the encoder's first convolution."""
        return self.stem_channels or self.channels[0]

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Width of each stage of the decoder, finest first."""
        return self.decoder_channels or self.channels

    @property
    def downsample(self) -> int:
        """See `NetworkRecord.downsample`."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def summary(self) -> str:
        """See `NetworkRecord.summary`."""
        return f"2^{len(self.channels) - 1} of {len(self.channels)} stages"

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """See `NetworkRecord.build`."""
        from imtok.networks.vqgan import VQGANDecoder, VQGANEncoder

        return VQGANEncoder(latent_dim, self), VQGANDecoder(code_dim, self, output_channels)

    def code_identity(self) -> dict[str, Any]:
        """See `NetworkRecord.code_identity`; options of the decoder alone are no part of it."""
        return {
            "kind": self.kind,
            "channels": list(self.channels),
            "stem_channels": self.stem_width,
            "blocks": self.blocks,
            "attention_stages": sorted(set(self.attention_stages)),
            "middle_blocks": self.middle_blocks,
            "middle_attention": self.middle_attention,
            "latent_channels": self.latent_channels,
            "norm_groups": self.norm_groups,
            "norm_eps": self.norm_eps,
            "last_kernel": self.last_kernel,
            "bias": self.bias,
            "downsampling": self.downsampling,
            "shortcut": self.shortcut,
            "image_range": self.image_range,
        }
