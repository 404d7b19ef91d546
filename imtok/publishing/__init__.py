"""Publishing: a tokenizer on the Hugging Face Hub, with a model card that is written from its run."""

from imtok.publishing.card import model_card
from imtok.publishing.facts import Facts, gather
from imtok.publishing.job import PushReport, push

__all__ = ["Facts", "PushReport", "gather", "model_card", "push"]
