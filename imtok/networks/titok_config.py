"""Configuration of TiTok's encoder and decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from imtok.networks.record import NetworkRecord
from imtok.networks.vqgan_config import VQGANConfig

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder

_Width = Annotated[int, Field(ge=1)]


class TiTokConfig(NetworkRecord):
    """TiTok's transformers (Yu et al., 2024); the defaults are TiTok-L-32's.

    `legacy` is the published form of the first three tokenizers (L-32, B-64, S-128): the features of the latent tokens
    are read in another order than they lie in, and the decoder's transformer predicts the codes of a MaskGIT-VQGAN,
    whose decoder (`pixel_channels`, `pixel_blocks`) draws the image. Without it the transformer predicts pixels.
    """

    norm_groups: ClassVar[int] = 32  # of the decoder of pixels

    kind: Literal["titok"] = "titok"
    image_size: int = Field(256, ge=1, description="side of the images; the transformers know places of this one alone")
    patch_size: int = Field(16, ge=1, description="side of the encoder's patches")
    tokens: int = Field(32, ge=1, description="codes of an image")
    width: int = Field(1024, ge=1, description="width of the encoder's transformer")
    layers: int = Field(24, ge=1)
    heads: int = Field(16, ge=1)
    decoder_patch_size: int = Field(16, ge=1, description="side of the decoder's patches")
    decoder_width: int = Field(1024, ge=1)
    decoder_layers: int = Field(24, ge=1)
    decoder_heads: int = Field(16, ge=1)
    legacy: bool = True
    pixel_codes: int = Field(1024, ge=1, description="codes that the legacy decoder predicts")
    pixel_latents: int = Field(256, ge=1, description="channels of such a code")
    pixel_channels: tuple[_Width, ...] = Field((128, 128, 256, 256, 512), min_length=1, description="as of kind vqgan")
    pixel_blocks: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("patch_size", "decoder_patch_size"):
            if self.image_size % getattr(self, name):
                raise ValueError(f"image_size {self.image_size} is no multiple of {name} {getattr(self, name)}")
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width} {getattr(self, width)} is no multiple of {heads} {getattr(self, heads)}")
        if self.legacy and self.pixels.downsample != self.decoder_patch_size:
            raise ValueError(
                f"pixel_channels has {len(self.pixel_channels)} stages, which enlarge {self.pixels.downsample} times; "
                f"decoder_patch_size is {self.decoder_patch_size}, and both have to agree"
            )
        return self

    @property
    def pixels(self) -> VQGANConfig:
        """The network of MaskGIT-VQGAN, whose decoder draws the image."""
        return VQGANConfig(
            channels=self.pixel_channels,
            attention_stages=(),
            middle_blocks=self.pixel_blocks,
            middle_attention=False,
            latent_channels=None,
            decoder_blocks=self.pixel_blocks,
            norm_groups=self.norm_groups,
            bias=False,
            shortcut="output",
            image_range="0..1",
        )

    @property
    def downsample(self) -> None:
        """See `NetworkRecord.downsample`."""
        return None

    @property
    def only_size(self) -> int:
        """See `NetworkRecord.only_size`."""
        return self.image_size

    @property
    def summary(self) -> str:
        """See `NetworkRecord.summary`."""
        return f"a sequence of {self.tokens}"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """See `NetworkRecord.grid`."""
        del height, width
        return 1, self.tokens

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """See `NetworkRecord.build`."""
        from imtok.networks.titok import TiTokDecoder, TiTokEncoder

        return TiTokEncoder(latent_dim, self), TiTokDecoder(code_dim, self, output_channels)

    def code_identity(self) -> dict[str, Any]:
        """See `NetworkRecord.code_identity`; options of the decoder alone are no part of it."""
        names = ("kind", "image_size", "patch_size", "tokens", "width", "layers", "heads", "legacy")
        return {name: getattr(self, name) for name in names}
