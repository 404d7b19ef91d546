"""Configuration of the convolutional encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from imtok.networks.record import NetworkRecord

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Encoder


class ConvConfig(NetworkRecord):
    """The convolutional encoder and decoder.

    Files have `fold` for `patch_size` and no `kind`, as before networks had kinds; both names are read.
    """

    former_names: ClassVar[dict[str, str]] = {"fold": "patch_size"}

    kind: Literal["conv"] = "conv"
    patch_size: int = Field(
        4, ge=1, le=32, description="side of the patches whose pixels become channels before the first layer"
    )
    channels: tuple[Annotated[int, Field(ge=4)], ...] = Field(
        (64, 128),
        min_length=1,
        description="width of each stage, finest first; the grid halves between stages",
    )
    blocks: int = Field(2, ge=1, description="residual blocks a stage")
    attention: bool = Field(False, description="self-attention at the lowest resolution")

    @model_validator(mode="before")
    @classmethod
    def _read_fold(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "fold" in values and "patch_size" in values:
            raise ValueError("fold is the former name of patch_size; give one of them")
        return current_names(values)

    @model_serializer(mode="wrap")
    def _write_fold(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        values.pop("kind", None)  # where a caller left it out
        return {"fold" if name == "patch_size" else name: value for name, value in values.items()}

    @property
    def fold(self) -> int:
        """The first name of `patch_size`."""
        return self.patch_size

    @property
    def downsample(self) -> int:
        """See `NetworkRecord.downsample`."""
        return int(self.patch_size * 2 ** (len(self.channels) - 1))

    @property
    def summary(self) -> str:
        """See `NetworkRecord.summary`."""
        return f"patch_size {self.patch_size} x 2^{len(self.channels) - 1}"

    def build(self, latent_dim: int, code_dim: int, output_channels: int = 3) -> tuple[Encoder, Decoder]:
        """See `NetworkRecord.build`."""
        from imtok.networks.conv import ConvDecoder, ConvEncoder

        shape = {name: getattr(self, name) for name in ("patch_size", "channels", "blocks", "attention")}
        encoder = ConvEncoder(latent_dim, **shape)
        return encoder, ConvDecoder(code_dim, **shape, output_channels=output_channels)

    def code_identity(self) -> dict[str, Any]:
        """See `NetworkRecord.code_identity`; the keys are those of the first tokenizers, whatever fields are called."""
        return {
            "fold": self.patch_size,
            "channels": list(self.channels),
            "blocks": self.blocks,
            "attention": self.attention,
        }


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename fields under a former name; one whose present name is there too stays, and the record refuses it."""
    present = {name: ConvConfig.former_names.get(name, name) for name in values}
    return {name if present[name] in values else present[name]: value for name, value in values.items()}
