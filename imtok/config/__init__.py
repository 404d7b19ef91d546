"""Configuration: frozen records that check themselves, and how presets, files and `--set` become one of them."""

from imtok.config.loading import lift, load_tokenizer_config, load_train_config, merge
from imtok.config.records import DecoderOutput, NetworkConfig, TokenizerConfig, TrainConfig
from imtok.config.sources import (
    parse_settings,
    preset,
    preset_about,
    preset_groups,
    preset_names,
    read_config_file,
)
from imtok.config.training import AdversarialConfig, DataConfig, LossConfig, OptimizerConfig
from imtok.networks.discriminator_config import DiscriminatorConfig

__all__ = [
    "AdversarialConfig",
    "DataConfig",
    "DecoderOutput",
    "DiscriminatorConfig",
    "LossConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "TokenizerConfig",
    "TrainConfig",
    "lift",
    "load_tokenizer_config",
    "load_train_config",
    "merge",
    "parse_settings",
    "preset",
    "preset_about",
    "preset_groups",
    "preset_names",
    "read_config_file",
]
