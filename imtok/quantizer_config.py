"""Configuration of quantizers: a frozen record for each kind, with the fields of its constructor."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from imtok.records import Record


class _BaseQuantizerConfig(Record):
    """A quantizer of one codebook."""

    # Those that decide codes beside the tensors, for the fingerprint: a change here orphans the tokens on disk.
    code_fields: ClassVar[set[str]]

    def code_identity(self) -> dict[str, Any]:
        """The fields that decide codes, and no others."""
        return self.model_dump(mode="json", include={"kind"} | self.code_fields)

    @property
    def base(self) -> BaseQuantizerConfig:
        """What quantizes in the end: of a composite its part's part, and so on."""
        return self  # type: ignore[return-value]  # every subclass is in the union

    @property
    def base_key(self) -> str:
        """Where `--set` finds the base quantizer."""
        return "quantizer"

    @property
    def tables(self) -> tuple[int, ...]:
        """For each of the Q codebooks the number of the table behind it: a shared table serves several."""
        return (0,)

    @property
    def index_order(self) -> str | None:
        """How the digits of a latent make its code; None where a code is a row number."""
        return None


class FSQConfig(_BaseQuantizerConfig):
    """Finite scalar quantization."""

    code_fields: ClassVar[set[str]] = {"levels"}

    kind: Literal["fsq"] = "fsq"
    levels: tuple[int, ...] = Field((8, 8, 8, 6, 5), min_length=1, description="values per dimension, each >= 3")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.levels) < 3:
            raise ValueError(f"levels are {list(self.levels)}, expected 3 or more in each dimension")
        return self

    @property
    def num_codes(self) -> int:
        """K."""
        return math.prod(self.levels)

    @property
    def index_order(self) -> str:
        """See `_BaseQuantizerConfig.index_order`."""
        return "first dimension fastest"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"FSQ {'x'.join(map(str, self.levels))}"


class VQConfig(_BaseQuantizerConfig):
    """Vector quantization; the fields are those of `imtok.quantizers.VectorQuantizer`.

    Where `codebook_update`, `estimator` or `online_clustering` leaves no choice in other fields, those follow from
    it unless they are given.
    """

    code_fields: ClassVar[set[str]] = {"dim", "num_codes", "metric"}

    kind: Literal["vq"] = "vq"
    dim: int = Field(8, ge=1)
    num_codes: int = Field(1024, ge=1)
    metric: Literal["euclidean", "cosine", "dot"] = "euclidean"
    estimator: Literal["straight_through", "rotation", "index_propagation"] = "straight_through"
    codebook_update: Literal["ema", "gradient", "projection", "frozen"] = "ema"
    decay: float = Field(0.99, ge=0, lt=1)
    commitment_weight: float = Field(0.25, ge=0)
    codebook_weight: float = Field(1.0, ge=0)
    entropy_weight: float = Field(0.0, ge=0)
    entropy_temperature: float = Field(0.01, gt=0)
    projection_bias: bool = False
    kmeans_start: bool = True
    revival_threshold: float = Field(0.05, ge=0, lt=1)
    online_clustering: bool = False
    eps: float = Field(1e-5, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        implied: dict[str, Any] = {}
        if values.get("estimator") == "index_propagation":
            implied |= {"metric": "dot", "codebook_update": "gradient"}
        known = implied | dict(values)
        if known.get("metric") == "dot" or known.get("codebook_update") in ("projection", "frozen"):
            implied |= {"kmeans_start": False, "revival_threshold": 0.0}
        if known.get("online_clustering") is True:
            implied |= {"codebook_update": "gradient", "revival_threshold": 0.0}
        return implied | dict(values)

    @property
    def moves_single_codes(self) -> bool:
        """A k-means start and the revival of dead codes are possible."""
        return self.codebook_update in ("ema", "gradient") and self.metric != "dot"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"VQ of {self.num_codes} codes, {self.metric}, {self.estimator}, {self.codebook_update} codebook" + (
            ", online clustering" if self.online_clustering else ""
        )


class _SignConfig(_BaseQuantizerConfig):
    """What LFQ and BSQ share; the fields are those of `imtok.quantizers.LFQ`."""

    code_fields: ClassVar[set[str]] = {"dim"}

    kind: str
    dim: int = Field(10, ge=1, le=31, description="bits of a code")
    commitment_weight: float = Field(0.25, ge=0)
    entropy_weight: float = Field(0.1, ge=0)
    sample_entropy_weight: float = Field(1.0, ge=0)
    batch_entropy_weight: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    entropy_group: int = Field(1, ge=1, description="dimensions whose joint entropy is exact; divides dim")

    @property
    def num_codes(self) -> int:
        """K."""
        return int(2**self.dim)

    @property
    def index_order(self) -> str:
        """See `_BaseQuantizerConfig.index_order`."""
        return "first dimension most significant"


class LFQConfig(_SignConfig):
    """Lookup-free quantization."""

    kind: Literal["lfq"] = "lfq"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"LFQ of {self.dim} bits ({self.num_codes} codes)"


class BSQConfig(_SignConfig):
    """Binary spherical quantization."""

    kind: Literal["bsq"] = "bsq"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"BSQ of {self.dim} bits ({self.num_codes} codes)"


class GumbelConfig(_BaseQuantizerConfig):
    """Gumbel-softmax; the fields are those of `imtok.quantizers.GumbelQuantizer`."""

    code_fields: ClassVar[set[str]] = {"dim", "num_codes"}

    kind: Literal["gumbel"] = "gumbel"
    dim: int = Field(32, ge=1)
    num_codes: int = Field(1024, ge=1)
    code_dim: int | None = Field(None, ge=1, description="channels of a code; left out: dim")
    temperature: float = Field(1.0, gt=0)
    final_temperature: float = Field(1 / 16, gt=0)
    kl_weight: float = Field(5e-4, ge=0)
    straight_through: bool = True

    @property
    def summary(self) -> str:
        """A few words for a person."""
        cooling = f"temperature {self.temperature:g} to {self.final_temperature:g}"
        return f"Gumbel-softmax of {self.num_codes} codes, {cooling}"


class _CompositeConfig(Record):
    """One part several times, each with a codebook of its own or all with one."""

    kind: str
    part: QuantizerConfig = VQConfig()
    shared: bool = Field(False, description="one codebook for all")

    @property
    def times(self) -> int:
        """How often the part is used."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """K, of each codebook."""
        return self.part.num_codes

    @property
    def base(self) -> BaseQuantizerConfig:
        """See `_BaseQuantizerConfig.base`."""
        return self.part.base

    @property
    def base_key(self) -> str:
        """See `_BaseQuantizerConfig.base_key`."""
        return self.part.base_key + ".part"

    @property
    def tables(self) -> tuple[int, ...]:
        """See `_BaseQuantizerConfig.tables`."""
        inner = self.part.tables
        step = 0 if self.shared else max(inner) + 1
        return tuple(use * step + table for use in range(self.times) for table in inner)

    @property
    def index_order(self) -> str | None:
        """See `_BaseQuantizerConfig.index_order`; that of the part, in each codebook."""
        return self.part.index_order

    @property
    def _owners(self) -> str:
        return "one codebook for all" if self.shared else "each with its own codebook"


class ResidualConfig(_CompositeConfig):
    """Residual quantization: each stage describes what the last ones missed."""

    kind: Literal["residual"] = "residual"
    depth: int = Field(4, ge=1, le=256, description="stages")
    scales: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="size of each stage's codes; left out: 2 ** -i for FSQ, signs and cosine, else 1"
    )
    quantizer_dropout: float = Field(0.0, ge=0, le=1, description="share of the images with their first stages alone")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scales is not None and len(self.scales) != self.depth:
            raise ValueError(f"there are {len(self.scales)} scales for {self.depth} stages, expected one a stage")
        return self

    def code_identity(self) -> dict[str, Any]:
        """The fields that decide codes, and no others; the scales are among the tensors."""
        return self.model_dump(mode="json", include={"kind", "depth", "shared"}) | {"part": self.part.code_identity()}

    @property
    def times(self) -> int:
        """How often the part is used."""
        return self.depth

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"residual of {self.depth} stages, {self._owners}: {self.part.summary}"


class ProductConfig(_CompositeConfig):
    """Product quantization: the channels are cut in equal parts."""

    kind: Literal["product"] = "product"
    heads: int = Field(4, ge=1, le=256, description="parts, of part.dim channels each")

    def code_identity(self) -> dict[str, Any]:
        """The fields that decide codes, and no others."""
        return self.model_dump(mode="json", include={"kind", "heads", "shared"}) | {"part": self.part.code_identity()}

    @property
    def times(self) -> int:
        """How often the part is used."""
        return self.heads

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"product of {self.heads} heads, {self._owners}: {self.part.summary}"


BaseQuantizerConfig = FSQConfig | VQConfig | LFQConfig | BSQConfig | GumbelConfig
QuantizerConfig = Annotated[BaseQuantizerConfig | ResidualConfig | ProductConfig, Field(discriminator="kind")]

# By the names that stand in the places of pydantic's errors, which may be list positions too.
KINDS: dict[int | str, type[Record]] = {
    "fsq": FSQConfig,
    "vq": VQConfig,
    "lfq": LFQConfig,
    "bsq": BSQConfig,
    "gumbel": GumbelConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}

for _record in (_CompositeConfig, ResidualConfig, ProductConfig):
    _record.model_rebuild()
