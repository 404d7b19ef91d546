"""Training a tokenizer: `train(sources, run, config)`."""

from imtok.training.auto import Choice, choose
from imtok.training.loop import train
from imtok.training.report import TrainProgress, TrainReport
from imtok.training.resolve import resolve

__all__ = ["Choice", "TrainProgress", "TrainReport", "choose", "resolve", "train"]
