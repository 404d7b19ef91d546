"""The union of all networks' configurations by `kind`; there is one so far."""

from __future__ import annotations

from imtok.networks.conv_config import ConvConfig
from imtok.networks.record import NetworkRecord

# With a second kind: Annotated[ConvConfig | OtherConfig, Field(discriminator="kind")].
AnyNetworkConfig = ConvConfig

KINDS: dict[int | str, type[NetworkRecord]] = {"conv": ConvConfig}
