"""The contract of a protocol: from a picture to the two images that a metric compares.

A tokenizer is measured in four steps: a picture becomes a square (`prepare`), its levels become the input of the
network (`to_input`), the decoded floats become levels again (`to_uint8`), and each metric compares two images in the
form that the protocol gives it (`pair`). Protocols differ in all four, so their values cannot be compared.
"""

# Axes: B batch, H x W picture, S side of the square, N images.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from imtok.errors import ConfigError
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import METRICS

if TYPE_CHECKING:  # whoever names a protocol loads no torch
    import numpy as np
    from torch import Tensor

Form = Literal["uint8", "floats"]


@dataclass(frozen=True)
class Protocol:
    """How one family of tokenizers is measured; its functions change nothing that they are given."""

    name: str
    used_by: str  # the published projects that measure so
    square: str  # resize and crop, in words
    rounding: str  # of reconstructions, in words
    to_square: Callable[[np.ndarray, int], Tensor]  # (H, W, 3) uint8, S -> (3, S, S) uint8
    to_floats: Callable[[Tensor], Tensor]  # uint8 -> float32 in [-1, 1]
    to_levels: Callable[[Tensor], Tensor]  # floats, 1 white and -1 black -> uint8
    restored_floats: Callable[[Tensor], Tensor]  # decoded floats -> the floats that metrics of floats compare
    forms: Mapping[str, Form] = field(default_factory=dict)  # by name of the metric; uint8 where absent
    metrics: Mapping[str, type[Metric]] = field(default_factory=dict)  # by name; that of METRICS where absent
    notes: Mapping[str, str] = field(default_factory=dict)  # by name of the metric, what its values are, in words
    rounds_originals: bool = False  # whether originals become levels again from floats, by `to_levels`
    repeats: bool = False  # whether images are repeated until every rank has equally many
    batch: int | None = None  # images in the batches whose means are averaged; None: the mean is over images

    def prepare(self, pixels: np.ndarray, size: int) -> Tensor:
        """Bring a picture to a square: (H, W, 3) uint8 -> (3, S, S) uint8 for S = `size`, contiguous.

        Raises ImtokError where an optional package is needed and absent.
        """
        return self.to_square(pixels, size)

    def to_input(self, originals: Tensor) -> Tensor:
        """Convert squares to what the network encodes: (B, 3, S, S) uint8 -> float32 in [-1, 1]."""
        return self.to_floats(originals)

    def to_uint8(self, decoded: Tensor) -> Tensor:
        """Convert decoded floats to levels: (B, 3, S, S) float, -1 black and 1 white -> uint8."""
        return self.to_levels(decoded)

    def form(self, metric: str) -> Form:
        """Return the form of the images that a metric compares, by the metric's name."""
        return self.forms.get(metric, "uint8")

    def metric(self, name: str) -> type[Metric]:
        """Return the class of a metric as this family computes it, by its name; that of METRICS unless it differs.

        Raises ConfigError where there is no such metric.
        """
        if name not in METRICS:
            raise ConfigError(f"metric {name}: unknown, expected one of {', '.join(METRICS)}")
        return self.metrics.get(name, METRICS[name])

    def pair(self, form: Form, decoded: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
        """Return (restored, originals) as a metric of this form compares them.

        `originals` are uint8 and `decoded` are the decoder's floats, or uint8 as a codec restores them, which count as
        originals do; both are (B, 3, S, S). The result is two uint8 tensors, or two float32 tensors where -1 is black
        and 1 white.
        """
        if not decoded.is_floating_point():
            return self._of_levels(form, decoded), self._of_levels(form, originals)
        restored = self.to_levels(decoded) if form == "uint8" else self.restored_floats(decoded.float())
        return restored, self._of_levels(form, originals)

    def _of_levels(self, form: Form, levels: Tensor) -> Tensor:
        if form == "floats":
            return self.to_floats(levels)
        return self.to_levels(self.to_floats(levels)) if self.rounds_originals else levels

    def order(self, images: int, ranks: int = 1) -> list[int]:
        """List the numbers of the images in the order in which means take them, repeated ones last.

        A protocol that repeats images does so as torch's DistributedSampler: the first images come again at the end,
        until all `ranks` have equally many. Rank r has every `ranks`-th number from r on.
        """
        numbers = list(range(images))
        missing = -images % ranks if self.repeats and images else 0
        return numbers + [number % images for number in range(missing)]

    def weights(self, images: int, ranks: int = 1) -> np.ndarray | None:
        """Return the weight of each image in a mean: (N,) float64 of sum 1, or None where all are equal.

        Weights differ where images are repeated, and where means of batches are averaged and the last batch is short.
        """
        import numpy as np

        order = self.order(images, ranks)
        batch = self.batch or len(order)
        if not order or (len(order) == images and images % batch == 0):
            return None
        weights = np.zeros(images)
        batches = [order[first : first + batch] for first in range(0, len(order), batch)]
        for numbers in batches:
            np.add.at(weights, numbers, 1 / len(numbers) / len(batches))
        return weights

    def describe(self) -> str:
        """Describe the protocol in one line: its name, the square, the rounding, and each metric that differs."""
        notes = [f"{metric}: {note}" for metric, note in self.notes.items()]
        return "; ".join([f"{self.name}: {self.square}", f"reconstructions {self.rounding}", *notes])
