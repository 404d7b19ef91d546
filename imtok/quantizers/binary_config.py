"""Configuration of lookup-free and binary spherical quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from imtok.quantizers.record import LOWER_RATE, Problem, QuantizerRecord, axis_sums

if TYPE_CHECKING:
    from imtok.entropy import Counts
    from imtok.quantizers.binary import BSQ, LFQ

FirstBit = Literal["most significant", "least significant"]

_LARGEST_GROUP = 20


class SignConfig(QuantizerRecord):
    """The common part of LFQ and BSQ; the fields are those of `imtok.quantizers.LFQ`."""

    code_fields: ClassVar[set[str]] = {"dim", "first_bit"}
    collapsed_share: ClassVar[float] = 0.01  # see `FSQConfig`
    size_field: ClassVar[str] = "dim"

    dim: int = Field(10, ge=1, le=31, description="bits of a code")
    commitment_weight: float = Field(0.25, ge=0)
    entropy_weight: float = Field(0.1, ge=0)
    sample_entropy_weight: float = Field(1.0, ge=0)
    batch_entropy_weight: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, ge=1e-6)
    entropy_group: int = Field(1, ge=1, description="dimensions whose joint entropy is exact; divides dim")
    first_bit: FirstBit = Field("most significant", description="bit of a code that the first dimension decides")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.entropy_group:
            raise ValueError(
                f"entropy_group is {self.entropy_group}, expected a divisor of dim {self.dim}; 1 is cheapest"
            )
        if self.entropy_group > _LARGEST_GROUP:
            raise ValueError(
                f"entropy_group is {self.entropy_group}, which holds 2^{self.entropy_group} probabilities; at most "
                f"{_LARGEST_GROUP} is supported, and 1 needs no table"
            )
        if self.entropy_weight > 0 and self.sample_entropy_weight == 0 and self.batch_entropy_weight == 0:
            raise ValueError(
                "entropy_weight above 0 with sample_entropy_weight and batch_entropy_weight both 0 has no effect; "
                "give one of them above 0, or entropy_weight=0"
            )
        return self

    @property
    def num_codes(self) -> int:
        """K."""
        return int(2**self.dim)

    @property
    def index_order(self) -> str:
        """See `QuantizerRecord.index_order`."""
        return f"first dimension {self.first_bit}"

    def code_identity(self) -> dict[str, Any]:
        """See `QuantizerRecord.code_identity`; without the order of the bits where it is that of older tokenizers."""
        identity = super().code_identity()
        if self.first_bit == "most significant":
            del identity["first_bit"]
        return identity

    def counts_by_dimension(self, counts: Counts) -> list[Counts]:
        """See `QuantizerRecord.counts_by_dimension`."""
        sums = axis_sums(counts, (2,) * self.dim)
        return sums if self.first_bit == "most significant" else sums[::-1]

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """See `QuantizerRecord.suggestions`; the entropy loss asks for all codes."""
        entropy = f"a higher {key}.entropy_weight"
        if problem == "idle dimension":
            return [entropy, f"one dimension fewer ({key}.dim)"]
        return [entropy, self.fewer_codes(key), LOWER_RATE]


class LFQConfig(SignConfig):
    """Lookup-free quantization; the fields are those of `imtok.quantizers.LFQ`."""

    kind: Literal["lfq"] = "lfq"

    def build(self) -> LFQ:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.binary import LFQ

        return LFQ(**self.model_dump(exclude={"kind"}))

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"LFQ of {self.dim} bits ({self.num_codes} codes)"


class BSQConfig(SignConfig):
    """Binary spherical quantization; the fields are those of `imtok.quantizers.BSQ`."""

    kind: Literal["bsq"] = "bsq"

    def build(self) -> BSQ:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.binary import BSQ

        return BSQ(**self.model_dump(exclude={"kind"}))

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"BSQ of {self.dim} bits ({self.num_codes} codes)"
