"""The layout of VQGAN's network in published checkpoints: names of its tensors, and the record that its shapes give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Size

from imtok.config.errors import first_problem
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.names import renamed
from imtok.networks.vqgan_config import VQGANConfig

Rules = Mapping[str, str]  # see `renamed`: from our names to the published ones

SHARED: Rules = {
    r"quantizer\.codebook": "quantize.embedding.weight",
    r"(?:encoder|decoder)\.((?:post_)?quant_conv\..*)": r"\1",
    r"(encoder|decoder)\.trunk\.(.*)": r"\1.\2",
}
TAMING: Rules = {
    **SHARED,
    r"(.*)\.shortcut\.(.*)": r"\1.nin_shortcut.\2",
    r"(encoder\..*)\.resample\.(.*)": r"\1.downsample.\2",
    r"(decoder\..*)\.resample\.(.*)": r"\1.upsample.\2",
}
TAMING_MIDDLE: Rules = {
    r"(.*\.mid)\.0\.(.*)": r"\1.block_1.\2",
    r"(.*\.mid)\.1\.(.*)": r"\1.attn_1.\2",
    r"(.*\.mid)\.2\.(.*)": r"\1.block_2.\2",
}
# Without attention the second block is the second layer.
BARE_MIDDLE: Rules = {r"(.*\.mid)\.0\.(.*)": r"\1.block_1.\2", r"(.*\.mid)\.1\.(.*)": r"\1.block_2.\2"}

_UP = re.compile(r"^(decoder\.trunk\.up\.)(\d+)")
_FIRST = "encoder.trunk.down.{}.block.0.conv1.weight"  # of a stage


class Layout:
    """A checkpoint's tensors by our names; `coarsest_first` says how its decoder numbers the stages."""

    def __init__(self, checkpoint: Checkpoint, rules: Rules, *, coarsest_first: bool = False) -> None:
        self.checkpoint, self.rules = checkpoint, rules
        self._turned = False
        last = self.count(_FIRST) - 1
        self._turned, self._last = coarsest_first, last

    def published(self, name: str) -> str:
        """Return the published name of our tensor."""
        if self._turned:
            name = _UP.sub(lambda found: f"{found[1]}{self._last - int(found[2])}", name)
        return renamed([name], self.rules)[name]

    def shape(self, name: str) -> Size:
        """Return the shape of the tensor that is `name` here; raises TokenizerError where it is missing."""
        published = self.published(name)
        if published not in self.checkpoint.tensors:
            raise TokenizerError(
                f"{self.checkpoint.path}: lacks {published}, so its network is not known; download the file again"
            )
        return self.checkpoint.tensors[published].shape

    def has(self, name: str) -> bool:
        """Return whether there is a tensor that is `name` here."""
        return self.published(name) in self.checkpoint.tensors

    def count(self, name: str) -> int:
        """Return how many of `name`, with 0, 1, ... in the place of its braces, there are."""
        number = 0
        while self.has(name.format(number)):
            number += 1
        return number


def network_of(layout: Layout, **options: Any) -> VQGANConfig:
    """Return the record of the network whose tensors these are; `options` are what no shape says.

    Options of the decoder stay as the encoder's where there is no decoder. Raises TokenizerError where no network has
    such shapes.
    """
    encoder = _half(layout, "encoder.trunk.down")
    attention = layout.has("encoder.trunk.mid.1.q.weight")
    middle = 1 + layout.count("encoder.trunk.mid.{}.conv1.weight") if attention else 0
    last, stem = layout.shape("encoder.conv_out.weight"), layout.shape("encoder.trunk.conv_in.weight")[0]
    values: dict[str, Any] = {
        **encoder,
        "stem_channels": None if stem == encoder["channels"][0] else stem,
        "middle_blocks": middle or layout.count("encoder.trunk.mid.{}.conv1.weight"),
        "middle_attention": attention,
        "latent_channels": last[0] if layout.has("encoder.quant_conv.weight") else None,
        "last_kernel": last[2],
        "bias": layout.has("encoder.trunk.conv_in.bias"),
    }
    if layout.has("decoder.conv_out.weight"):
        usual = {**encoder, "blocks": encoder["blocks"] + 1}
        decoder = _half(layout, "decoder.trunk.up")
        values |= {f"decoder_{name}": value for name, value in decoder.items() if value != usual[name]}
    try:
        return VQGANConfig(**{**values, **options})
    except ValidationError as error:
        problem = first_problem(error, VQGANConfig)
        raise TokenizerError(f"{layout.checkpoint.path}: no network here has its shapes: {problem}") from error


def _half(layout: Layout, stages: str) -> dict[str, Any]:
    """Return widths, blocks and attended stages of the encoder or the decoder, whose stages have this name."""
    first = stages + ".{}.block.0.conv1.weight"
    count = max(layout.count(first), 1)
    return {
        "channels": tuple(layout.shape(first.format(stage))[0] for stage in range(count)),
        "blocks": layout.count(stages + ".0.block.{}.conv1.weight"),
        "attention_stages": tuple(stage for stage in range(count) if layout.has(f"{stages}.{stage}.attn.0.q.weight")),
    }


def settings_of(settings: Mapping[str, Any], *place: str) -> Mapping[str, Any]:
    """Return the mapping at a place in nested settings; empty where there is none."""
    found: Any = settings
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def number_of(said: Mapping[str, Any], name: str, usual: float) -> float:
    """Return a number that a configuration says, or the usual one where it says none."""
    value = said.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else usual


def size_of(network: VQGANConfig, said: Any) -> tuple[int, tuple[str, ...]]:
    """Return the image side to use by default, and the sentence about it where the configuration does not say it.

    It is then 256, which most papers measure at, or the nearest multiple of the downsampling below.
    """
    down = network.downsample
    if isinstance(said, int) and not isinstance(said, bool) and said >= 8 and said % down == 0:
        return said, ()
    side = max(1, 256 // down) * down
    return side, (f"size {side}: no configuration says it",)


def check_said(checkpoint: Checkpoint, said: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise TokenizerError where a configuration says another number than the shapes; it may leave numbers out."""
    for name, value in said.items():
        if name in found and value is not None and value != found[name]:
            where = checkpoint.settings_path.name if checkpoint.settings_path else "its configuration"
            raise TokenizerError(
                f"{checkpoint.path}: {name} is {value} by {where} and {found[name]} by the weights; name the "
                "configuration of these weights by --config"
            )
