"""The tensors that a tokenizer of a configuration has, found without making room for them."""

from __future__ import annotations

import torch
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import ConfigError, TokenizerError
from imtok.quantizers.base import TRAINING_STATE
from imtok.tokenizer import Tokenizer


def skeleton(config: TokenizerConfig) -> dict[str, Tensor]:
    """Return the tensors of `Tokenizer(config)` by name, as its files have them, on the meta device: no values.

    Raises TokenizerError where no tokenizer can be built from the configuration.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            tensors = Tokenizer(config).state_dict()
    except (ConfigError, ValueError, RuntimeError) as error:
        raise TokenizerError(f"no tokenizer has this configuration: {error}".splitlines()[0]) from error
    return {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in TRAINING_STATE}
