"""Training a tokenizer: `train(sources, run, config)`."""

from imtok.training.auto import Choice, choose
from imtok.training.loop import TrainProgress, TrainReport, train

__all__ = ["Choice", "TrainProgress", "TrainReport", "choose", "train"]
