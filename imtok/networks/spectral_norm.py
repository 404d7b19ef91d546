"""Spectral normalisation of a network: each weight is divided by its largest singular value (Miyato et al., 2018).

The singular value comes from one step of the power iteration a forward pass in training mode (their algorithm 1). The
vectors of the iteration are buffers, so that checkpoints hold them. A convolution's weight is taken as the matrix
(out, in * height * width), as in the paper: this bounds the slope of a layer up to a factor of its kernel's size. Other
normalisation in the network has weights of its own, which stay free.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from imtok.recomputation import FirstPasses, is_recomputed, may_be_recomputed


class SpectralNorm(_SpectralNorm):
    """torch's spectral normalisation of one weight, whose iteration takes no step in a recomputed forward.

    Under gradient checkpointing the second pass of a layer divides by the singular value of its first pass, which is
    recognised by the layer's input.
    """

    _u: Tensor
    _v: Tensor
    input: Tensor | None = None  # of the layer, while its forward runs

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self._first_passes = FirstPasses[tuple[Tensor, Tensor]]()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight over its largest singular value: any shape -> the same shape."""
        key, self.input = self.input, None
        if key is None or not self.training:
            normalised: Tensor = super().forward(weight)
            return normalised
        if is_recomputed():
            u, v = self._first_passes.find(key) or (self._u, self._v)
            return weight / torch.vdot(u, torch.mv(self._reshape_weight_to_matrix(weight), v))
        normalised = super().forward(weight)
        self._first_passes.keep(key, (self._u.clone(), self._v.clone()))
        return normalised


def add_spectral_norm(network: nn.Module) -> None:
    """Put spectral normalisation on all convolutions and linear layers of a network, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))
            module.register_forward_pre_hook(_show_input)


def _show_input(layer: nn.Module, args: tuple[Any, ...]) -> None:
    """Let the normalisation see the layer's input where the forward is recomputed, or may be."""
    if is_recomputed() or may_be_recomputed():
        cast(Any, layer).parametrizations.weight[0].input = args[0]
