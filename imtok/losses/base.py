"""The contract every term of the reconstruction loss keeps: a name, a weight, and a scalar of (output, images)."""

# Axes: B batch, C channels of the decoder's output, H x W image.

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from imtok.config import DecoderOutput


class LossTerm:
    """A named, weighted term of the reconstruction loss; a subclass gives the name and `__call__`.

    A term of weight 0 is computed and logged, and trains nothing. It is a mean over the images it is given, as several
    ranks weigh the means of their own images by their shares; `imtok.distributed.joint_mean` serves any other function.
    """

    name: ClassVar[str]  # in the log it is `loss/NAME`
    decoder_output: ClassVar[DecoderOutput] = "pixels"  # the output that the decoder must be built for
    autocast: ClassVar[bool] = False  # True: computed in the precision of the networks; False: in float32
    requirement: str = ""  # a sentence on what must be fetched before the run, empty for nothing

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        """Return the unweighted loss, a float32 scalar.

        `output` is the decoder's raw output (B, C, H, W) in float32, `images` are (B, 3, H, W) in [-1, 1].
        """
        raise NotImplementedError

    def active(self, progress: float) -> bool:  # noqa: ARG002
        """Return whether the term is computed at this share of the run, in [0, 1]; by default it always is."""
        return True

    def check(self, *, fetch: bool) -> None:
        """Raise ConfigError where a file that the term needs is missing or damaged; `fetch` gets what can be had."""

    def load(self, device: torch.device) -> None:
        """Bring what the term computes with to the device; called once before the first step."""

    @property
    def network(self) -> nn.Module | None:
        """The frozen network behind the term, once loaded, for metrics that need one of this term's name."""
        return None

    def outline(self) -> nn.Module | None:
        """Build the frozen network behind the term without its weights, for an estimate of memory; None without one."""
        return None
