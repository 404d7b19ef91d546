"""The options of `VectorQuantizer`, and which of them do not go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from imtok.quantizers.base import whole_number

VectorMetric = Literal["euclidean", "cosine", "dot"]
Estimator = Literal["straight_through", "rotation", "index_propagation"]
CodebookUpdate = Literal["ema", "gradient", "projection", "frozen"]


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """What the constructor was given."""

    dim: int
    num_codes: int
    metric: VectorMetric
    estimator: Estimator
    codebook_update: CodebookUpdate
    decay: float
    commitment_weight: float
    codebook_weight: float
    entropy_weight: float
    entropy_temperature: float
    kmeans_start: bool
    revival_threshold: float
    online_clustering: bool
    eps: float

    def check(self) -> None:
        """Raise ValueError, with the reason, on a value or a combination that does not work."""
        self._check_choices()
        self._check_numbers()
        self._check_index_propagation()
        self._check_losses()
        self._check_moves()

    def _check_choices(self) -> None:
        for name, value, choices in (
            ("metric", self.metric, get_args(VectorMetric)),
            ("estimator", self.estimator, get_args(Estimator)),
            ("codebook_update", self.codebook_update, get_args(CodebookUpdate)),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")

    def _check_numbers(self) -> None:
        if whole_number("dim", self.dim) < 1 or whole_number("num_codes", self.num_codes) < 1:
            raise ValueError(f"dim {self.dim} and num_codes {self.num_codes} must be 1 or more")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}, expected [0, 1); 0.99 averages over about 100 steps")
        for name in ("commitment_weight", "codebook_weight", "entropy_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be finite and not negative")
        if not 0 < self.entropy_temperature < math.inf:
            raise ValueError(f"entropy_temperature is {self.entropy_temperature}, expected above 0; 0.01 is usual")
        if not 0 < self.eps < math.inf:
            raise ValueError(
                f"eps is {self.eps}, expected above 0 and finite; it keeps the mean of no latents from 0/0"
            )
        if not 0 <= self.revival_threshold < 1:
            raise ValueError(
                f"revival_threshold is {self.revival_threshold}, expected [0, 1): a fraction of the fair share N/K"
            )

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

    def _check_moves(self) -> None:
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
        asked = {
            "kmeans_start": self.kmeans_start,
            "revival_threshold": self.revival_threshold > 0,
            "online_clustering": self.online_clustering,
        }
        found = " and ".join(name for name, given in asked.items() if given)
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
