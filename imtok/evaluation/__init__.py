"""Metrics of reconstructions, and the measurement of tokenizers by them: `evaluate(tokenizer, sources)`."""

from typing import TYPE_CHECKING

from imtok.evaluation.bootstrap import Interval, interval_of_mean
from imtok.evaluation.features import FID, CleanFID, Precision, PytorchFID, Recall
from imtok.evaluation.metric import ImageMean, Metric
from imtok.evaluation.metrics import (
    BEST_BY,
    METRICS,
    OpenedMetrics,
    build_metrics,
    empty_copies,
    find_metric,
    first_metric,
    open_available,
    open_metrics,
)
from imtok.evaluation.perceptual import LPIPS, AlexLPIPS
from imtok.evaluation.pixels import MSSSIM, PSNR, SSIM, ms_ssim, psnr, ssim
from imtok.evaluation.rates import Rate, rate_of
from imtok.evaluation.weights import WEIGHTS, WeightsFile, find_weights, parse_weights
from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.evaluation.job import evaluate, evaluate_tokenizers
    from imtok.evaluation.measuring import measure, measurement_of
    from imtok.evaluation.quality import Measurement, Quality
    from imtok.evaluation.result import Result, read_results, tables

__all__ = [
    "BEST_BY",
    "FID",
    "LPIPS",
    "METRICS",
    "MSSSIM",
    "PSNR",
    "SSIM",
    "WEIGHTS",
    "AlexLPIPS",
    "CleanFID",
    "ImageMean",
    "Interval",
    "Measurement",
    "Metric",
    "OpenedMetrics",
    "Precision",
    "PytorchFID",
    "Quality",
    "Rate",
    "Recall",
    "Result",
    "WeightsFile",
    "build_metrics",
    "empty_copies",
    "evaluate",
    "evaluate_tokenizers",
    "find_metric",
    "find_weights",
    "first_metric",
    "interval_of_mean",
    "measure",
    "measurement_of",
    "ms_ssim",
    "open_available",
    "open_metrics",
    "parse_weights",
    "psnr",
    "rate_of",
    "read_results",
    "ssim",
    "tables",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("evaluate", "evaluate_tokenizers"), "imtok.evaluation.job"),
        **dict.fromkeys(("Result", "read_results", "tables"), "imtok.evaluation.result"),
        **dict.fromkeys(("measure", "measurement_of"), "imtok.evaluation.measuring"),
        **dict.fromkeys(("Measurement", "Quality"), "imtok.evaluation.quality"),
    },
)
