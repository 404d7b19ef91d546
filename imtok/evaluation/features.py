"""Metrics on Inception's features: rFID in three ways to resize, precision and recall.

A row is an image's features, 2,048 float32 on each side. Metrics of one network share their rows, so that features are
computed and kept once.
"""

# Axes: B batch, N images, D features.

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, cast

from imtok.evaluation.metric import Metric

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from collections.abc import Mapping

    from torch import Tensor, nn

    from imtok.evaluation.inception import InceptionFeatures, Resizing

_NEIGHBOURS = 3  # of precision and recall, as their authors have it


class FeatureMetric(Metric):
    """A metric that compares the features of all reconstructions with those of all originals."""

    needs, weights = "inception", "inception"
    by_default = False
    fewest: ClassVar[int]  # images
    reason: ClassVar[str]  # for `fewest`
    resizing: ClassVar[Resizing] = "tensorflow"

    def share(self, other: FeatureMetric) -> None:
        """Read the rows of `other`, which has the same network, in place of own ones."""
        self._rows, self.shares = other._rows, True

    def update(self, restored: Tensor, originals: Tensor) -> None:
        """Add the features of a batch, unless the metric that has the rows does."""
        if self.shares:
            return
        network = cast("InceptionFeatures", self.network)
        self.add_rows(restored=network(restored), originals=network(originals))

    def refusal(self) -> str:
        """Say that the images are too few, where they are."""
        if self.images >= self.fewest:
            return ""
        return f"{self.label} needs {self.fewest:,} images or more, and there are {self.images:,}: {self.reason}"

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to the rows that `state` returned, unless the metric that has the rows does."""
        if not self.shares:
            super().restore(state)

    def merge(self, other: Self) -> None:
        """Append the rows of `other`, unless the metric that has the rows does."""
        if not self.shares:
            super().merge(other)

    @classmethod
    def open_network(cls, weights: Path | None = None) -> nn.Module:
        """Open Inception with these weights, or with those in torch's cache, which are fetched where absent."""
        from imtok.evaluation.inception import InceptionFeatures
        from imtok.evaluation.weights import find_weights

        return InceptionFeatures(weights or find_weights(cls.weights, {}, needed_by=cls.label).path, cls.resizing)


class FID(FeatureMetric):
    """Frechet distance of reconstructions from their originals on Inception's features (Heusel et al., 2017)."""

    name, label, higher_is_better, digits = "rfid", "rFID", False, 3
    description = "Frechet distance of Inception's features of reconstructions and originals (Heusel et al., 2017)"
    method = "torch-fidelity's Inception, resized as by TensorFlow 1"
    fewest = 2048
    reason = "of fewer images than features the covariance has no full rank, and the number tells how many there were"

    def compute(self) -> float:
        """Return the distance; there must be 2,048 images."""
        from imtok.evaluation.distributions import frechet_distance, gaussian_of

        first, second = (gaussian_of(self.batches_of_rows(name)) for name in ("restored", "originals"))
        return frechet_distance(first, second)


class PytorchFID(FID):
    """rFID with the resizing of pytorch-fid, clean-fid's `legacy_pytorch`."""

    method = "pytorch-fid's Inception and resizing"
    needs = "inception-pytorch"
    resizing = "pytorch"


class LegacyPytorchFID(PytorchFID):
    """`PytorchFID` beside the rFID of a protocol that resizes otherwise."""

    name, label = "rfid_pytorch", "rFID (pytorch-fid)"
    description = "rFID with the resizing of pytorch-fid, clean-fid's legacy_pytorch"


class CleanFID(FID):
    """rFID with clean-fid's resizing (Parmar et al., 2022)."""

    name, label = "rfid_clean", "rFID (clean-fid)"
    description = "rFID with the antialiased bicubic resizing of clean-fid (Parmar et al., 2022)"
    method = "Inception with clean-fid's resizing"
    needs = "inception-clean"
    resizing = "clean"


class Precision(FeatureMetric):
    """Share of reconstructions within the manifold of originals (Kynkaanniemi et al., 2019)."""

    name, label = "precision", "precision"
    description = (
        "share of reconstructions whose Inception features lie in the 3-nearest-neighbour balls of the originals' "
        "(Kynkaanniemi et al., 2019)"
    )
    method = "3 nearest neighbours, torch-fidelity's Inception"
    fewest = _NEIGHBOURS + 1
    reason = "a ball reaches to the third nearest other image"

    def compute(self) -> float:
        """Return the share; there must be 4 images."""
        return self._share("restored", "originals")

    def _share(self, queries: str, centres: str) -> float:
        import torch

        from imtok.evaluation.distributions import share_inside

        device = next(self.network.parameters()).device if self.network is not None else torch.device("cpu")
        pair = (self.rows(name).to(device) for name in (queries, centres))
        return share_inside(*pair, neighbours=_NEIGHBOURS)


class Recall(Precision):
    """Share of originals within the manifold of reconstructions (Kynkaanniemi et al., 2019)."""

    name, label = "recall", "recall"
    description = (
        "share of originals whose Inception features lie in the 3-nearest-neighbour balls of the reconstructions' "
        "(Kynkaanniemi et al., 2019)"
    )

    def compute(self) -> float:
        """Return the share; there must be 4 images."""
        return self._share("originals", "restored")


def share_rows(metrics: Iterable[Metric]) -> None:
    """Let metrics of features that have the same network share the rows of the first of them."""
    first: dict[str, FeatureMetric] = {}
    for metric in metrics:
        if isinstance(metric, FeatureMetric):
            owner = first.setdefault(metric.needs, metric)
            if owner is not metric:
                metric.share(owner)
