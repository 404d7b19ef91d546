"""Metrics of reconstructions, and the measurement of tokenizers by them: `evaluate(tokenizer, sources)`."""

from typing import TYPE_CHECKING

from imtok.evaluation.bootstrap import Interval, interval_of_mean
from imtok.evaluation.metric import ImageMean, Metric
from imtok.evaluation.metrics import BEST_BY, METRICS, build_metrics, first_metric
from imtok.evaluation.perceptual import LPIPS
from imtok.evaluation.pixels import PSNR, SSIM, psnr, ssim
from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.evaluation.job import evaluate
    from imtok.evaluation.measuring import measure, measurement_of
    from imtok.evaluation.quality import Measurement, Quality

__all__ = [
    "BEST_BY",
    "LPIPS",
    "METRICS",
    "PSNR",
    "SSIM",
    "ImageMean",
    "Interval",
    "Measurement",
    "Metric",
    "Quality",
    "build_metrics",
    "evaluate",
    "first_metric",
    "interval_of_mean",
    "measure",
    "measurement_of",
    "psnr",
    "ssim",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "evaluate": "imtok.evaluation.job",
        **dict.fromkeys(("measure", "measurement_of"), "imtok.evaluation.measuring"),
        **dict.fromkeys(("Measurement", "Quality"), "imtok.evaluation.quality"),
    },
)
