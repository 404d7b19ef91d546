"""Configuration of Gumbel-softmax quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from imtok.quantizers.record import Problem, QuantizerRecord

if TYPE_CHECKING:
    from imtok.quantizers.gumbel import GumbelQuantizer


class GumbelConfig(QuantizerRecord):
    """Gumbel-softmax; the fields are those of `imtok.quantizers.GumbelQuantizer`."""

    code_fields: ClassVar[set[str]] = {"dim", "num_codes"}
    dead_share: ClassVar[float] = 0.1  # see `VQConfig`
    size_field: ClassVar[str] = "num_codes"
    channels_field: ClassVar[str] = "code_dim"

    kind: Literal["gumbel"] = "gumbel"
    dim: int = Field(32, ge=1)
    num_codes: int = Field(1024, ge=1)
    code_dim: int | None = Field(None, ge=1, description="channels of a code; left out: dim")
    temperature: float = Field(1.0, gt=0)
    final_temperature: float = Field(1 / 16, gt=0)
    kl_weight: float = Field(5e-4, ge=0)
    straight_through: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.final_temperature > self.temperature:
            raise ValueError(
                f"final_temperature {self.final_temperature} is higher than temperature {self.temperature}: a softmax "
                "that grows softer moves away from single codes; give a lower one"
            )
        return self

    def build(self) -> GumbelQuantizer:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.gumbel import GumbelQuantizer

        return GumbelQuantizer(**self.model_dump(exclude={"kind"}))

    @property
    def summary(self) -> str:
        """A few words for a person."""
        cooling = f"temperature {self.temperature:g} to {self.final_temperature:g}"
        return f"Gumbel-softmax of {self.num_codes} codes, {cooling}"

    @property
    def assignment_tables(self) -> int:
        """See `QuantizerRecord.assignment_tables`: the logits, and what their softmax and divergence keep."""
        return 4

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """See `QuantizerRecord.suggestions`; the divergence keeps codes in use."""
        del problem
        return [f"a higher {key}.kl_weight", self.fewer_codes(key)]
