"""The union of all networks' configurations by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imtok.networks.conv_config import ConvConfig
from imtok.networks.record import NetworkRecord
from imtok.networks.vqgan_config import VQGANConfig

AnyNetworkConfig = Annotated[ConvConfig | VQGANConfig, Field(discriminator="kind")]

KINDS: dict[int | str, type[NetworkRecord]] = {"conv": ConvConfig, "vqgan": VQGANConfig}
