"""The contract of a published family: how it is recognised, and what its checkpoints are in our names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.interop.checkpoint import Checkpoint


@dataclass(frozen=True)
class Conversion:
    """A checkpoint in our names."""

    config: TokenizerConfig
    published: Mapping[str, str]  # name of each tensor of `Tokenizer(config)` -> its name in the checkpoint
    made: Mapping[str, Tensor]  # tensors of ours that are computed from published ones, by our names
    skipped: tuple[str, ...] = ()  # published tensors that a tokenizer does not need
    assumed: tuple[str, ...] = ()  # what no configuration says and was taken for granted, a sentence each
    read: tuple[str, ...] = ()  # published tensors that those made are computed from
    no_decoder: bool = False  # the checkpoint has none, so the one that is made decodes to gray images


class Family(ABC):
    """One published family of tokenizers."""

    name: ClassVar[str]  # as `--family` takes it
    label: ClassVar[str]  # as a person knows it, with the project's name

    @abstractmethod
    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the keys are those of this family; at most one family of the list says so."""

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Return whether the keys may be of this family where a person says that they are; by default as `recognises`.

        Families that share their keys, and differ in a configuration that is missing, say more here.
        """
        return self.recognises(checkpoint)

    @abstractmethod
    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """Return configuration and names; raises TokenizerError, which names the key, where they do not fit."""
