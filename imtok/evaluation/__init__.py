"""Metrics of reconstructions, and the protocol by which a tokenizer is measured: `evaluate(tokenizer, sources)`."""

from typing import TYPE_CHECKING

from imtok.evaluation.metric import ImageMean, Metric
from imtok.evaluation.metrics import BEST_BY, METRICS, build_metrics, first_metric
from imtok.evaluation.perceptual import LPIPS
from imtok.evaluation.pixels import PSNR, SSIM, psnr, ssim
from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.evaluation.protocol import Measurement, Quality, evaluate, measure, measurement_of

__all__ = [
    "BEST_BY",
    "LPIPS",
    "METRICS",
    "PSNR",
    "SSIM",
    "ImageMean",
    "Measurement",
    "Metric",
    "Quality",
    "build_metrics",
    "evaluate",
    "first_metric",
    "measure",
    "measurement_of",
    "psnr",
    "ssim",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    dict.fromkeys(("Measurement", "Quality", "evaluate", "measure", "measurement_of"), "imtok.evaluation.protocol"),
)
