"""Configuration of vector quantization against a learned codebook."""

# Axes: K codes, D latent channels.

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from imtok.quantizers.record import Problem, QuantizerRecord

if TYPE_CHECKING:
    from imtok.quantizers.vector import VectorQuantizer

VectorMetric = Literal["euclidean", "cosine", "dot"]
Estimator = Literal["straight_through", "rotation", "index_propagation"]
CodebookUpdate = Literal["ema", "gradient", "projection", "frozen"]

_FEW_CHANNELS = 16  # ViT-VQGAN and LlamaGen take 8 to 32; nearest codes among hundreds of channels leave most unused
# Fewer leave codes where they started: after 1 latent a code the first ones restart, after 4 nearly all are in use.
_LATENTS_A_CODE = 4
_LEVELS = ((8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5), (8, 8, 8, 5, 5, 5))  # FSQ's, table 1 of its paper


class VQConfig(QuantizerRecord):
    """Vector quantization; the fields are those of `imtok.quantizers.VectorQuantizer`.

    Where `codebook_update`, `estimator` or `online_clustering` leaves no choice in other fields, those follow from
    it unless they are given.
    """

    code_fields: ClassVar[set[str]] = {"dim", "num_codes", "metric"}
    # Codes die because only those that are chosen learn. In the study VQ without k-means start and restart of dead
    # codes collapses from 2^10 codes on. Restart leaves 5 % unused at 2^14 codes and less below, so a tenth is waste.
    dead_share: ClassVar[float] = 0.1
    size_field: ClassVar[str] = "num_codes"
    channels_field: ClassVar[str] = "dim"

    kind: Literal["vq"] = "vq"
    dim: int = Field(8, ge=1)
    num_codes: int = Field(1024, ge=1)
    metric: VectorMetric = "euclidean"
    unit_lookup: bool = Field(
        False, description="codes are looked up at length 1, though they are searched as they are (Janus)"
    )
    estimator: Estimator = "straight_through"
    codebook_update: CodebookUpdate = "ema"
    decay: float = Field(0.99, ge=0, lt=1, description="0.99 averages over about 100 steps")
    commitment_weight: float = Field(0.25, ge=0)
    codebook_weight: float = Field(1.0, ge=0)
    entropy_weight: float = Field(0.0, ge=0)
    entropy_temperature: float = Field(0.01, gt=0)
    projection_bias: bool = False
    kmeans_start: bool = True
    revival_threshold: float = Field(0.05, ge=0, lt=1, description="share of even use at which codes are dead; 0: none")
    online_clustering: bool = False
    eps: float = Field(1e-5, gt=0, description="keeps the mean of no latents from 0 / 0")

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

    @model_serializer(mode="wrap")
    def _leave_out_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `unit_lookup` only where it is set, so that files from before it stay as they were."""
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "unit_lookup" or value}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse, with the reason, options that do not go together."""
        self._check_index_propagation()
        self._check_losses()
        self._check_moved_codes()
        if self.unit_lookup and self.metric != "euclidean":
            raise ValueError(
                f"unit_lookup is for codes that are searched by Euclidean distance, not by metric={self.metric!r}; "
                "metric='cosine' looks codes up at length 1 by itself"
            )
        return self

    def _check_index_propagation(self) -> None:
        propagates = self.estimator == "index_propagation"
        if propagates and (self.metric, self.codebook_update) != ("dot", "gradient"):
            raise ValueError(
                f"index propagation learns every code through softmax(z.e), and has no other gradient: with "
                f"metric={self.metric!r} and codebook_update={self.codebook_update!r} the code that is found and the "
                f"softmax would disagree, or nothing would learn; give metric='dot', codebook_update='gradient'"
            )
        if self.metric == "dot" and not propagates:
            raise ValueError(
                "by the greatest product the longest codes take all latents, and without index propagation the "
                "others never learn; give estimator='index_propagation', or metric='euclidean' or 'cosine'"
            )

    def _check_losses(self) -> None:
        held = self.commitment_weight > 0 or self.metric == "cosine"
        if self.codebook_update in ("ema", "frozen") and not held:
            named = "an EMA codebook" if self.codebook_update == "ema" else "a frozen codebook"
            raise ValueError(
                f"{named} with commitment_weight 0 diverges: nothing holds the latents near the codes; "
                "give a commitment_weight above 0 (0.25 is usual) or metric='cosine'"
            )
        if self.codebook_update in ("gradient", "projection") and self.codebook_weight == 0:
            raise ValueError(
                f"a {self.codebook_update} codebook with codebook_weight 0 never learns from the latents; "
                "give 1.0 or codebook_update='ema'"
            )

    def _check_moved_codes(self) -> None:
        if self.online_clustering and self.revival_threshold > 0:
            raise ValueError(
                f"online_clustering and revival_threshold {self.revival_threshold} both move codes that are not "
                "used; give one of them"
            )
        if self.online_clustering and self.codebook_update == "ema":
            raise ValueError(
                "online_clustering moves codes, and moving averages put them back at the next step; "
                "give codebook_update='gradient', or revival_threshold=0.05 in its place"
            )
        requested = {
            "kmeans_start": self.kmeans_start,
            "revival_threshold": self.revival_threshold > 0,
            "online_clustering": self.online_clustering,
        }
        found = " and ".join(name for name, given in requested.items() if given)
        if found and self.codebook_update in ("projection", "frozen"):
            raise ValueError(
                f"{found} moves single codes, and the codebook of codebook_update={self.codebook_update!r} is fixed "
                "noise; leave it out"
            )
        if found and self.metric == "dot":
            raise ValueError(
                f"{found} puts codes where latents are, which is no place of greatest product; index propagation "
                "moves every code at each step and needs none of it: leave it out"
            )

    def code_identity(self) -> dict[str, Any]:
        """See `QuantizerRecord.code_identity`; `unit_lookup` joins where it is set, so that older ones stay."""
        return super().code_identity() | ({"unit_lookup": True} if self.unit_lookup else {})

    def build(self) -> VectorQuantizer:
        """See `QuantizerRecord.build`."""
        from imtok.quantizers.vector import VectorQuantizer

        return VectorQuantizer(**self.model_dump(exclude={"kind"}))

    @property
    def summary(self) -> str:
        """A few words for a person."""
        return (
            f"VQ of {self.num_codes} codes, {self.metric}, {self.estimator}, {self.codebook_update} codebook"
            + (", online clustering" if self.online_clustering else "")
            + (", looked up at length 1" if self.unit_lookup else "")
        )

    @property
    def moves_single_codes(self) -> bool:
        """A k-means start and the restart of dead codes are possible."""
        return self.codebook_update in ("ema", "gradient") and self.metric != "dot"

    @property
    def assignment_tables(self) -> int:
        """See `QuantizerRecord.assignment_tables`: those of the entropy loss and of index propagation."""
        return 2 * (self.entropy_weight > 0) + (self.estimator == "index_propagation")

    @property
    def latents_to_learn(self) -> int:
        """See `QuantizerRecord.latents_to_learn`."""
        return _LATENTS_A_CODE * self.num_codes if self.moves_single_codes else 0

    def suggestions(self, problem: Problem, key: str) -> list[str]:
        """See `QuantizerRecord.suggestions`."""
        learns_by_loss = self.codebook_update in ("gradient", "projection")
        entropy_loss = f"--set {key}.entropy_weight=0.05" if learns_by_loss and self.entropy_weight == 0 else ""
        if problem == "uneven use":
            return [*filter(None, [entropy_loss]), self.fewer_codes(key)]
        wide = self.metric == "euclidean" and self.dim > _FEW_CHANNELS
        tried = {
            self._moves(key): self.moves_single_codes,
            f"--set {key}.codebook_update=projection": self.codebook_update == "frozen",
            entropy_loss: True,
            f"--set {key}.metric=cosine --set {key}.dim=8": wide and self.codebook_update == "gradient",
            self.fewer_codes(key): True,
            self._fsq(key): True,
        }
        return [suggestion for suggestion, helps in tried.items() if helps and suggestion]

    def _moves(self, key: str) -> str:
        """The k-means start and the restart of dead codes, as far as they are not set; these belong together."""
        weak = self.revival_threshold < 0.05 and not self.online_clustering
        moves = [
            f"--set {key}.kmeans_start=true" if not self.kmeans_start else "",
            f"--set {key}.revival_threshold=0.05" if weak else "",
        ]
        return " ".join(filter(None, moves))

    def _fsq(self, key: str) -> str:
        """FSQ with about as many codes; its levels replace every setting of the quantizer."""
        levels = min(_LEVELS, key=lambda each: abs(math.log(math.prod(each) / self.num_codes)))
        written = ",".join(map(str, levels))
        return f'FSQ of {math.prod(levels)} codes: --set "{key}={{kind: fsq, levels: [{written}]}}"'
