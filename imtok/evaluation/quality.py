"""The quality of a tokenizer on a set of images: metrics and use of codes, gathered batch by batch, and as a record."""

# Axes: B batch, S size, Q codebooks, K codes.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from imtok.data.images import Fit
from imtok.devices import Precision
from imtok.evaluation.aggregate import aggregated
from imtok.evaluation.bootstrap import Interval
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import first_metric
from imtok.evaluation.protocols import DEFAULT_PROTOCOL, Form, Protocol, find_protocol
from imtok.usage import CodebookUsage, count_by_codebook


@dataclass(frozen=True)
class Quality:
    """Reconstruction metrics and codebook use of a tokenizer on a set of images."""

    images: int
    skipped: int  # images that could not be read
    size: int  # side of the square, pixels
    precision: Precision
    metrics: Mapping[str, float]  # by name; PSNR is infinite where all images come back exactly
    exact: int  # images that come back exactly
    bits_per_image: float
    usage: CodebookUsage
    fit: Fit = "crop"  # how images became squares
    enlarged: int = 0  # images smaller than the square
    mean_enlargement: float | None = None  # mean factor of their sides; None where there is none
    failed_shards: Mapping[str, str] = field(default_factory=dict)  # reasons by name, of a stream
    protocol_name: str = DEFAULT_PROTOCOL
    refused: Mapping[str, str] = field(default_factory=dict)  # metrics that give no number, and why
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # 95 %, of the metrics that are means over images

    @property
    def psnr(self) -> float:
        """PSNR in dB."""
        return self.metrics["psnr"]

    @property
    def ssim(self) -> float:
        """SSIM in [-1, 1]."""
        return self.metrics["ssim"]

    @property
    def lpips(self) -> float | None:
        """LPIPS, where it was measured."""
        return self.metrics.get("lpips")

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics for JSON, with None in place of an infinite value."""
        return {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}

    @property
    def protocol(self) -> str:
        """The protocol in one line, to print beside the metrics."""
        square = {
            "crop": f"shorter side {self.size}, centre crop {self.size}x{self.size}",
            "pad": f"longer side {self.size}, edges repeated to {self.size}x{self.size} and compared too",
        }
        kinds = [find_protocol(self.protocol_name).metric(name) for name in self.metrics]
        methods = "; ".join(f"{kind.label} {kind.method}" for kind in kinds)
        if self.protocol_name != DEFAULT_PROTOCOL:
            described = find_protocol(self.protocol_name).describe()
            return f"{described}; S = {self.size}, {self.precision}; {methods}"
        return f"PIL bicubic to {square[self.fit]}, {self.precision}, uint8 RGB; {methods}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, as `imtok eval --json` prints it; an infinite value is null."""
        values = self.values
        first = first_metric().name  # stands before `exact`
        return {
            "images": self.images,
            "skipped": self.skipped,
            **({"failed_shards": dict(self.failed_shards)} if self.failed_shards else {}),
            "size": self.size,
            "precision": self.precision,
            **({first: values.pop(first)} if first in values else {}),
            "exact": self.exact,
            **values,
            "bits_per_image": self.bits_per_image,
            **{name: value for name, value in self.usage.as_dict().items() if name != "images"},
            "protocol": self.protocol,
        }


class Measurement:
    """Metrics and code counts of a set of images that passes in batches; those of parts of a set merge."""

    def __init__(self, metrics: Sequence[Metric], *, num_codes: int, num_codebooks: int = 1) -> None:
        self.metrics = metrics
        self.counts = np.zeros((num_codebooks, num_codes), np.int64)  # (Q, K)
        self.images = self.exact = 0

    def update(self, restored: Tensor, originals: Tensor, codes: Tensor) -> None:
        """Add a batch: two (B, 3, S, S) uint8, and the codes (B, h, w) or (B, h, w, Q) between them."""
        for metric in self.metrics:
            metric.update(restored, originals)
        self._count(restored, originals, codes)

    def update_by(
        self,
        protocol: Protocol,
        decoded: Tensor,
        originals: Tensor,
        codes: Tensor | None,
        expected: dict[Form, Tensor] | None = None,
    ) -> None:
        """Add a batch as a protocol compares it: decoded images and uint8 originals, both (B, 3, S, S), and codes.

        What is compared is brought to main memory. `expected` are originals by form, which grow here: tokenizers that
        share them share their features too.
        """
        known: dict[Form, Tensor] = {} if expected is None else expected
        on_device = originals.to(decoded.device)

        def compared(form: Form) -> tuple[Tensor, Tensor]:
            restored, theirs = protocol.pair(form, decoded, on_device)
            return restored.cpu(), known.setdefault(form, theirs.cpu())

        forms: set[Form] = {"uint8", *(protocol.form(metric.name) for metric in self.metrics)}
        pairs = {form: compared(form) for form in forms}
        for metric in self.metrics:
            metric.update(*pairs[protocol.form(metric.name)])
        restored, levels = pairs["uint8"]
        self._count(restored, levels, codes)

    def _count(self, restored: Tensor, originals: Tensor, codes: Tensor | None) -> None:
        if codes is not None:
            self.counts += count_by_codebook([codes.cpu().numpy()], self.counts.shape[1], len(self.counts))
        self.images += len(originals)
        self.exact += int((restored == originals).flatten(1).all(dim=1).sum())

    def merge(self, other: Measurement) -> None:
        """Add all that `other` has seen, which has the same metrics in the same order."""
        for metric, theirs in zip(self.metrics, other.metrics, strict=True):
            metric.merge(theirs)
        self.counts += other.counts
        self.images += other.images
        self.exact += other.exact

    def quality(self, *, skipped: int, size: int, precision: Precision = "fp32", fit: Fit = "crop") -> Quality:
        """Compute all metrics; there must have been an image."""
        return self._quality(
            {metric.name: metric.compute() for metric in self.metrics}, skipped, size, precision, fit=fit
        )

    def quality_by(
        self, protocol: Protocol, *, skipped: int, size: int, precision: Precision = "fp32", ranks: int = 1
    ) -> Quality:
        """Compute all metrics as a protocol takes their means over `ranks` processes, with intervals.

        A metric that refuses these images is left out, with its reason. There must have been an image.
        """
        refused = {metric.name: reason for metric in self.metrics if (reason := metric.refusal())}
        values = aggregated(self.metrics, protocol, self.images, ranks)
        found = {metric.name: metric.interval() for metric in self.metrics if metric.name in values}
        intervals = {name: interval for name, interval in found.items() if interval is not None}
        quality = self._quality(values, skipped, size, precision)
        return replace(quality, protocol_name=protocol.name, refused=refused, intervals=intervals)

    def _quality(
        self, values: Mapping[str, float], skipped: int, size: int, precision: Precision, fit: Fit = "crop"
    ) -> Quality:
        usage = CodebookUsage.of_codebooks(self.counts, self.images)
        return Quality(
            images=self.images,
            skipped=skipped,
            size=size,
            precision=precision,
            metrics=values,
            exact=self.exact,
            bits_per_image=usage.tokens / self.images * math.log2(usage.codebook_size),
            usage=usage,
            fit=fit,
        )
