"""The union of all networks' configurations by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imtok.networks.conv_config import ConvConfig
from imtok.networks.dvae_config import DVAEConfig
from imtok.networks.emu3_config import Emu3Config
from imtok.networks.record import NetworkRecord
from imtok.networks.titok_config import TiTokConfig
from imtok.networks.vqgan_config import VQGANConfig

AnyNetworkConfig = Annotated[
    ConvConfig | VQGANConfig | DVAEConfig | Emu3Config | TiTokConfig, Field(discriminator="kind")
]

KINDS: dict[int | str, type[NetworkRecord]] = {
    "conv": ConvConfig,
    "vqgan": VQGANConfig,
    "dvae": DVAEConfig,
    "emu3": Emu3Config,
    "titok": TiTokConfig,
}
