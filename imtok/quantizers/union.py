"""The union of all quantizers' configurations by `kind`; residual and product are here, since they hold any of it."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from imtok.quantizers.binary_config import BSQConfig, LFQConfig
from imtok.quantizers.finite_scalar_config import FSQConfig
from imtok.quantizers.gumbel_config import GumbelConfig
from imtok.quantizers.record import QuantizerRecord
from imtok.quantizers.vector_config import VQConfig

if TYPE_CHECKING:
    from imtok.quantizers.base import Quantizer
    from imtok.quantizers.product import ProductQuantizer
    from imtok.quantizers.residual import ResidualQuantizer


class CompositeConfig(QuantizerRecord):
    """One part several times, each with a codebook of its own or all with one; its health is that of `base`."""

    part: QuantizerConfig = VQConfig()
    shared: bool = Field(False, description="one codebook for all")

    @property
    def times(self) -> int:
        """Number of uses of the part."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """K, of each codebook."""
        return self.part.num_codes

    @property
    def base(self) -> QuantizerRecord:
        """See `QuantizerRecord.base`."""
        return self.part.base

    @property
    def base_key(self) -> str:
        """See `QuantizerRecord.base_key`."""
        return self.part.base_key + ".part"

    @property
    def codebook_ids(self) -> tuple[int, ...]:
        """See `QuantizerRecord.codebook_ids`."""
        inner = self.part.codebook_ids
        step = 0 if self.shared else max(inner) + 1
        return tuple(use * step + number for use in range(self.times) for number in inner)

    @property
    def index_order(self) -> str | None:
        """See `QuantizerRecord.index_order`; that of the part, in each codebook."""
        return self.part.index_order

    def code_identity(self) -> dict[str, Any]:
        """See `QuantizerRecord.code_identity`."""
        return super().code_identity() | {"part": self.part.code_identity()}

    def _parts(self) -> tuple[Quantizer | list[Quantizer], int | None]:
        """One quantizer and how often it is used, or a list of them."""
        if self.shared:
            return self.part.build(), self.times
        return [self.part.build() for _ in range(self.times)], None

    @property
    def _owners(self) -> str:
        return "one codebook for all" if self.shared else "each with its own codebook"


class ResidualConfig(CompositeConfig):
    """Residual quantization: each stage describes what the last ones missed."""

    code_fields: ClassVar[set[str]] = {"depth", "shared"}  # the scales are among the tensors

    kind: Literal["residual"] = "residual"
    depth: int = Field(4, ge=1, le=256, description="stages")
    scales: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="size of each stage's codes; left out: 2 ** -i for FSQ, signs and cosine, else 1"
    )
    quantizer_dropout: float = Field(0.0, ge=0, le=1, description="share of the images with their first stages alone")

    def build(self) -> ResidualQuantizer:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.residual import ResidualQuantizer

        stages, depth = self._parts()
        return ResidualQuantizer(stages, depth=depth, scales=self.scales, quantizer_dropout=self.quantizer_dropout)

    @property
    def times(self) -> int:
        """Number of uses of the part."""
        return self.depth

    @property
    def fewer_parts(self) -> str:
        """See `QuantizerRecord.fewer_parts`."""
        return "fewer stages (quantizer.depth)"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"residual of {self.depth} stages, {self._owners}: {self.part.summary}"


class ProductConfig(CompositeConfig):
    """Product quantization: the channels are cut in equal parts."""

    code_fields: ClassVar[set[str]] = {"heads", "shared"}

    kind: Literal["product"] = "product"
    heads: int = Field(4, ge=1, le=256, description="parts, of part.dim channels each")

    def build(self) -> ProductQuantizer:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.product import ProductQuantizer

        heads, num_heads = self._parts()
        return ProductQuantizer(heads, num_heads=num_heads)

    @property
    def times(self) -> int:
        """Number of uses of the part."""
        return self.heads

    @property
    def fewer_parts(self) -> str:
        """See `QuantizerRecord.fewer_parts`."""
        return "fewer heads (quantizer.heads)"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"product of {self.heads} heads, {self._owners}: {self.part.summary}"


BaseQuantizerConfig = FSQConfig | VQConfig | LFQConfig | BSQConfig | GumbelConfig
QuantizerConfig = Annotated[BaseQuantizerConfig | ResidualConfig | ProductConfig, Field(discriminator="kind")]

# By the names that stand in the places of pydantic's errors, which may be list positions too.
KINDS: dict[int | str, type[QuantizerRecord]] = {
    "fsq": FSQConfig,
    "vq": VQConfig,
    "lfq": LFQConfig,
    "bsq": BSQConfig,
    "gumbel": GumbelConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}

for _record in (CompositeConfig, ResidualConfig, ProductConfig):
    _record.model_rebuild()
