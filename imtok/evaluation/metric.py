"""The contract of a metric: a number that says how well reconstructions keep a set of images.

A metric takes pairs of batches with `update`, keeps rows of them, and gives its number with `compute`. A row is all
that the metric needs of one image: a value, or features. Rows stay in the order of the images. So a set can be cut into
parts that are measured anywhere: `state` gives the rows to write down, `restore` takes them back, `merge` appends those
of the next part. `compute` reads the rows of the whole set in their order; its result is the same to the bit however
the set was cut. The class declares how tables, logs, plots and JSON show the number.
"""

# Axes: B batch, N images, S side of the square.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from imtok.evaluation.bootstrap import Interval, interval_of_mean

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from torch import Tensor, nn

_DECIMALS_IN_A_LINE = 3


class Metric(ABC):
    """A metric over one set of images, empty at first; pickled, it leaves its network behind."""

    name: ClassVar[str]  # key in JSON, and after `val/` in the training log
    label: ClassVar[str]  # name in tables and plots
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    digits: ClassVar[int] = 4  # decimals
    description: ClassVar[str]  # its definition, in the JSON schema and the report's glossary
    method: ClassVar[str]  # how it is computed, in the line that states the protocol
    smallest: ClassVar[int] = 1  # pixels a side that it needs
    needs: ClassVar[str] = ""  # name of the network it needs; empty: none
    weights: ClassVar[str] = ""  # name of the published weights that its network reads, in `evaluation.weights`
    by_default: ClassVar[bool] = True  # measured where nobody names metrics, in training too

    def __init__(self, network: nn.Module | None = None) -> None:
        if (network is None) != (not self.needs):
            expected = f"the network {self.needs}" if self.needs else "no network"
            raise TypeError(f"{type(self).__name__} takes {expected}")
        self.network = network
        self.shares = False  # the rows are another metric's, which alone adds to them: `state` need not be saved twice
        self._rows: dict[str, list[Tensor]] = {}  # by name, (B, ...) each

    @abstractmethod
    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add a batch of reconstructions and their originals: two (B, 3, S, S) on one device.

        Both are uint8, or both are floats in [-1, 1]; the protocol says which. Nothing is rounded or clamped here. A
        metric of floats converts uint8 by `imtok.tokenizer.to_float`, which loses nothing.
        """

    @abstractmethod
    def compute(self) -> float:
        """Return the metric over all images so far; infinite where a perfect reconstruction has no finite value.

        There must be an image, and `refusal` must be empty.
        """

    def refusal(self) -> str:
        """Say why the images so far give no number, for example because they are too few; empty where they do."""
        return ""

    def interval(self) -> Interval | None:
        """Return the range in which the number lies with 95 %, None where the metric is no mean over images."""
        return None

    def add_rows(self, **rows: Tensor) -> None:
        """Add the rows of a batch by their names: (B, ...) each, on any device."""
        for name, batch in rows.items():
            self._rows.setdefault(name, []).append(batch.cpu())

    def batches_of_rows(self, name: str) -> list[Tensor]:
        """Return the rows of one name as they were added, (B, ...) each; to join them would copy all."""
        return self._rows.get(name, [])

    def rows(self, name: str) -> Tensor:
        """Return the rows of one name, (N, ...); there must be an image."""
        import torch

        return torch.cat(self._rows[name])

    @property
    def images(self) -> int:
        """Number of images so far."""
        return sum(len(batch) for batch in next(iter(self._rows.values()), []))

    def state(self) -> dict[str, Tensor]:
        """Return all rows by name, (N, ...) each on the CPU; empty before the first image."""
        return {name: self.rows(name) for name in self._rows}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to the rows that `state` returned, in place of those so far."""
        self._rows.clear()
        self._rows.update({name: [rows] for name, rows in state.items()})

    def merge(self, other: Self) -> None:
        """Append all rows of `other`, whose images come after those so far."""
        for name, batches in other._rows.items():
            self._rows.setdefault(name, []).extend(batches)

    def fresh(self) -> Self:
        """Return an empty metric of this kind, on the same network."""
        return type(self)(self.network)

    @classmethod
    def unavailable(cls) -> str:
        """Say why the network is not at hand on this machine; empty where it is, or none is needed.

        A metric with `weights` is at hand where they are in torch's cache; nothing is fetched.
        """
        if not cls.weights:
            return ""
        from imtok.evaluation.weights import WEIGHTS

        published = WEIGHTS[cls.weights]()
        if published.cached.is_file():
            return ""
        return f"{published.cached}: no such file; put {published.title} there, as {published.url} has them"

    @classmethod
    def open_network(cls, weights: Path | None = None) -> nn.Module | None:  # noqa: ARG003
        """Open the network that the metric needs; None where it needs none. Raises ConfigError where it cannot.

        `weights` is the file to read. It is given where the class declares `weights`.
        """
        return None

    @classmethod
    def format(cls, value: float | None) -> str:
        """Format a value with its unit; None stands for an infinite value in JSON and reads `exact`."""
        return cls._format(value, cls.digits)

    @classmethod
    def format_briefly(cls, value: float | None) -> str:
        """Format a value for a line that has several: with at most three decimals."""
        return cls._format(value, min(cls.digits, _DECIMALS_IN_A_LINE))

    @classmethod
    def _format(cls, value: float | None, digits: int) -> str:
        return "exact" if value is None else f"{value:.{digits}f} {cls.unit}".rstrip()

    @classmethod
    def is_better(cls, value: float | None, other: float | None) -> bool:
        """Compare two values in the metric's direction; None is better than any number."""
        if value is None or other is None:
            return value is None and other is not None
        return value > other if cls.higher_is_better else value < other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "network": None}


class ImageMean(Metric):
    """A metric that is the mean of one value for each image."""

    @abstractmethod
    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return the value of each image: two (B, 3, S, S), uint8 or floats in [-1, 1] -> (B,) float64."""

    @property
    def values(self) -> Tensor:
        """The value of each image so far, (N,) float64; there must be one."""
        return self.rows("values")

    def averaged(self) -> Tensor:
        """Return the values that the mean is over: (n,) float64, those of all images unless a metric says otherwise."""
        return self.values

    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add the values of a batch."""
        self.add_rows(values=self.of_images(restored, originals))

    def compute(self) -> float:
        """Return the mean over images."""
        return float(self.averaged().mean())

    def interval(self) -> Interval | None:
        """Return the 95 % interval of the mean by the bootstrap over images; None where the mean is over no image."""
        values = self.averaged().numpy()
        return interval_of_mean(values) if len(values) else None
