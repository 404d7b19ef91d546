"""The tokenizer a run starts with: new weights, or those of the tokenizer that `start_from` names."""

from __future__ import annotations

from imtok.config import TrainConfig
from imtok.errors import ConfigError
from imtok.tokenizer import Tokenizer, load


def initial_tokenizer(config: TrainConfig) -> Tokenizer:
    """Build the tokenizer with new weights or those of `start_from`; raises ConfigError where those do not fit."""
    if not config.start_from:
        return Tokenizer(config.tokenizer)
    start = load(config.start_from)
    found, requested = start.config, config.tokenizer
    same = {
        "network": found.network == requested.network,
        "quantizer": found.quantizer.code_identity() == requested.quantizer.code_identity(),
        "decoder_output": found.decoder_output == requested.decoder_output,
    }
    if not all(same.values()):
        other = next(name for name, equal in same.items() if not equal)
        raise ConfigError(
            f"{config.start_from}: its {other} is not that of this run ({getattr(found, other)} there, "
            f"{getattr(requested, other)} here); leave out the preset or the setting that names another"
        )
    tokenizer = Tokenizer(requested)
    try:
        tokenizer.load_state_dict(start.state_dict())
    except RuntimeError as error:
        theirs, ours = found.quantizer.model_dump(), requested.quantizer.model_dump()
        others = [name for name in ours if theirs.get(name) != ours[name]]
        raise ConfigError(
            f"{config.start_from}: its codebook was learned in another way; leave {', '.join(others)} of the quantizer "
            "as it was there"
        ) from error
    return tokenizer
