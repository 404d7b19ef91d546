"""Training a tokenizer: `train(sources, run, config)`."""

from imtok.training.auto import Choice, choose
from imtok.training.loop import resolve, train
from imtok.training.report import TrainProgress, TrainReport

__all__ = ["Choice", "TrainProgress", "TrainReport", "choose", "resolve", "train"]
