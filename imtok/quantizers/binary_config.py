"""Configuration of lookup-free and binary spherical quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from imtok.quantizers.record import LOWER_RATE, Problem, QuantizerRecord, axis_sums

if TYPE_CHECKING:
    from imtok.entropy import Counts
    from imtok.quantizers.binary import BSQ, LFQ


class _SignConfig(QuantizerRecord):
    """What LFQ and BSQ share; the fields are those of `imtok.quantizers.LFQ`."""

    code_fields: ClassVar[set[str]] = {"dim"}
    collapsed_share: ClassVar[float] = 0.01  # see `FSQConfig`
    size_field: ClassVar[str] = "dim"

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
        """See `QuantizerRecord.index_order`."""
        return "first dimension most significant"

    def counts_by_dimension(self, counts: Counts) -> list[Counts]:
        """See `QuantizerRecord.counts_by_dimension`."""
        return axis_sums(counts, (2,) * self.dim)

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """See `QuantizerRecord.suggestions`; the entropy loss asks for all codes."""
        entropy = f"a higher {key}.entropy_weight"
        if problem == "idle dimension":
            return [entropy, f"one dimension fewer ({key}.dim)"]
        return [entropy, self.fewer_codes(key), LOWER_RATE]


class LFQConfig(_SignConfig):
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


class BSQConfig(_SignConfig):
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
