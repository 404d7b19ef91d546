"""The base of all quantizers' configuration records: construction, identity, limits of health, suggestions.

Records import no torch, so that `imtok --help` stays quick; `build` imports the quantizer's module when it is called.
"""

# Axes: K codes, Q codebooks, D latent channels.

from __future__ import annotations

from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ValidationError

from imtok.records import Record

if TYPE_CHECKING:
    from imtok.entropy import Counts
    from imtok.quantizers.base import Quantizer

Problem = Literal["unused codes", "uneven use", "idle dimension"]

LOWER_RATE = "a lower optimizer.learning_rate"


class QuantizerRecord(Record):
    """Configuration of a quantizer; a kind's record overrides what is special about it.

    By itself, as kind `unknown`, it is the general policy for tokens whose quantizer is not known.
    """

    kind: str = "unknown"

    # Fields that decide codes beside the tensors, for the fingerprint: a change here orphans the tokens on disk.
    code_fields: ClassVar[set[str]] = set()
    # Share of the codes that could be in use at or below which a codebook has collapsed.
    collapsed_share: ClassVar[float] = 0.1
    # Share of the codes that stay unused from which on that is waste. The corners of a grid are rarely reached: a
    # healthy FSQ of 2^12 codes leaves 27 %, an unhealthy LFQ of 2^12 60 %.
    dead_share: ClassVar[float] = 0.5
    # The fields that set the number of codes and the channels of a code, for suggestions; empty: general words.
    size_field: ClassVar[str] = ""
    channels_field: ClassVar[str] = ""

    if TYPE_CHECKING:  # a field in some kinds, a property in others

        @property
        def num_codes(self) -> int:
            """K, of each codebook."""

        @property
        def dim(self) -> int:
            """D of the latents."""

    @classmethod
    def checked(cls, **options: Any) -> Self:
        """Return the record for the options of a constructor.

        Raises ValueError, in one line, on a value or a combination that does not work, TypeError on an unknown option.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            problem = error.errors()[0]
        name, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "expected")
        if problem["type"] == "extra_forbidden":
            raise TypeError(f"{name}: unknown option; known are {', '.join(signature(cls).parameters)}")
        field = cls.model_fields.get(name.split(".")[0])
        meaning = f" ({field.description})" if field and field.description else ""
        raise ValueError(
            f"{name} is {problem['input']!r}, {message[0].lower()}{message[1:]}{meaning}" if name else message
        )

    def build(self) -> Quantizer:
        """Return the quantizer, its random tensors newly drawn; raises ValueError on values that it refuses."""
        raise NotImplementedError(f"quantizers of kind {self.kind} cannot be built")

    def code_identity(self) -> dict[str, Any]:
        """Return the fields that decide codes, and no others."""
        return self.model_dump(mode="json", include={"kind"} | self.code_fields)

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return self.kind

    @property
    def base(self) -> QuantizerRecord:
        """The base quantizer: of a composite its part's part, and so on."""
        return self

    @property
    def base_key(self) -> str:
        """The key of the base quantizer in `--set`."""
        return "quantizer"

    @property
    def codebook_ids(self) -> tuple[int, ...]:
        """For each of the Q codebooks the number of the tensors behind it: shared ones serve several."""
        return (0,)

    @property
    def index_order(self) -> str | None:
        """The order of the digits in a code; None where a code is a row number."""
        return None

    def counts_by_dimension(self, counts: Counts) -> list[Counts]:
        """Count the levels of each dimension from counts of codes (K,); empty where a code is a row number."""
        del counts
        return []

    @property
    def assignment_tables(self) -> int:
        """Tables of N x K values that a training step keeps: more than 0 where all codes share in a choice."""
        return 0

    @property
    def latents_to_learn(self) -> int:
        """The number of latents below which a codebook of single codes has not learned; 0 where none learns."""
        return 0

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """Return settings that help and are not yet made, the first to try first; `key` is the quantizer's in `--set`.

        Each can follow "start a new run with". docs/collapse.md says what is known of each.
        """
        general: dict[Problem, list[str]] = {
            "unused codes": ["k-means start and revival of unused codes", self.fewer_codes(key)],
            "uneven use": ["an entropy loss", self.fewer_codes(key)],
            "idle dimension": ["one dimension fewer"],
        }
        return general[problem]

    @property
    def fewer_parts(self) -> str:
        """The setting that gives fewer codebooks; empty where there is only one."""
        return ""

    def fewer_codes(self, key: str) -> str:
        """Suggest a smaller codebook, with the setting that makes it so."""
        return f"fewer codes ({key}.{self.size_field})" if self.size_field else "fewer codes"

    def fewer_channels(self, key: str, channels: int) -> str:
        """Suggest codes of `channels` channels."""
        return (
            f"--set {key}.{self.channels_field}={channels}" if self.channels_field else f"codes of {channels} channels"
        )


def signature(record: type[QuantizerRecord], *positional: str, **defaults: Any) -> Signature:
    """Return the signature of a constructor that takes a record's options, for `help` and editors."""
    named = [parameter for name, parameter in record.__signature__.parameters.items() if name != "kind"]
    named.sort(key=lambda parameter: parameter.name not in positional)
    return Signature(
        [
            parameter.replace(kind=Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty)
            if parameter.name in positional
            else parameter.replace(default=defaults.get(parameter.name, parameter.default))
            for parameter in named
        ]
    )


def axis_sums(counts: Counts, shape: tuple[int, ...]) -> list[Counts]:
    """Sum counts (K,), laid out in C order as `shape`, over all axes but one, for each axis."""
    cube = counts.reshape(shape)
    return [cube.sum(axis=tuple(other for other in range(len(shape)) if other != axis)) for axis in range(len(shape))]
