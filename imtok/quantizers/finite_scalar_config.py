"""Configuration of finite scalar quantization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from imtok.quantizers.record import LOWER_RATE, Problem, QuantizerRecord, axis_sums

if TYPE_CHECKING:
    from imtok.entropy import Counts
    from imtok.quantizers.finite_scalar import FSQ

MOST_LEVELS = 1000  # the kernel's own limit


class FSQConfig(QuantizerRecord):
    """Finite scalar quantization; the fields are those of `imtok.quantizers.FSQ`."""

    code_fields: ClassVar[set[str]] = {"levels"}
    # Few codes are used early in a run, and more by themselves; where almost none are, the encoder gives the same
    # output for every image. LFQ and BSQ are alike in that.
    collapsed_share: ClassVar[float] = 0.01
    size_field: ClassVar[str] = "levels"

    kind: Literal["fsq"] = "fsq"
    levels: tuple[int, ...] = Field((8, 8, 8, 6, 5), min_length=1, description="values per dimension, each >= 3")

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = f"FSQ levels are {list(self.levels)}"
        if min(self.levels) < 3:
            raise ValueError(f"{found}, expected 3 or more in each dimension")
        if max(self.levels) > MOST_LEVELS:
            raise ValueError(
                f"{found}, expected {MOST_LEVELS} or fewer in each dimension: the published bound reaches no more; "
                "take more dimensions"
            )
        if self.num_codes > 2**31:
            raise ValueError(f"FSQ levels {list(self.levels)} make {self.num_codes} codes, at most 2^31 are supported")
        return self

    def build(self) -> FSQ:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.finite_scalar import FSQ

        return FSQ(self.levels)

    @property
    def num_codes(self) -> int:
        """K."""
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.levels)

    @property
    def index_order(self) -> str:
        """See `QuantizerRecord.index_order`."""
        return "first dimension fastest"

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return f"FSQ {'x'.join(map(str, self.levels))}"

    def counts_by_dimension(self, counts: Counts) -> list[Counts]:
        """See `QuantizerRecord.counts_by_dimension`."""
        return axis_sums(counts, self.levels[::-1])[::-1]

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """See `QuantizerRecord.suggestions`; there are no codes to learn, only corners the encoder does not reach."""
        if problem == "idle dimension":
            return [f"one dimension fewer ({key}.levels)", LOWER_RATE]
        return [
            "more training images (--images), if it was short",
            LOWER_RATE,
            self.fewer_codes(key),
        ]
