"""The contract of a metric: a number that says how well reconstructions keep a set of images.

A metric takes pairs of batches with `update` and gives its number with `compute`. `merge` adds what another object of
its class has seen, so that several processes can share a set. The class declares how tables, logs, plots and JSON show
the number.
"""

# Axes: B batch, S side of the square.

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

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

    def __init__(self, network: nn.Module | None = None) -> None:
        if (network is None) != (not self.needs):
            expected = f"the network {self.needs}" if self.needs else "no network"
            raise TypeError(f"{type(self).__name__} takes {expected}")
        self.network = network

    @abstractmethod
    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add a batch of reconstructions and their originals: two (B, 3, S, S) uint8 on one device.

        A metric of floats converts them by `imtok.tokenizer.to_float`, which loses nothing.
        """

    @abstractmethod
    def compute(self) -> float:
        """Return the metric over all images so far; infinite where a perfect reconstruction has no finite value."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add all that `other` has seen; the order of merging changes nothing but last bits."""

    @classmethod
    def unavailable(cls) -> str:
        """Say why the network is not at hand on this machine; empty where it is, or none is needed."""
        return ""

    @classmethod
    def open_network(cls) -> nn.Module | None:
        """Open the network that the metric needs; None where it needs none. Raises ConfigError where it cannot."""
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

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__(network)
        self.values: list[Tensor] = []  # (B,) float64 each

    @abstractmethod
    def of_images(self, restored: Tensor, originals: Tensor) -> Tensor:
        """Return the value of each image: two (B, 3, S, S) uint8 -> (B,) float64."""

    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add the values of a batch."""
        self.values.append(self.of_images(restored, originals).cpu())

    def compute(self) -> float:
        """Return the mean over images."""
        import torch

        return float(torch.cat(self.values).mean())

    def merge(self, other: Self) -> None:
        """Add the values of other images."""
        self.values += other.values
