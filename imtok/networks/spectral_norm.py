"""Spectral normalisation of a network: each weight is divided by its largest singular value (Miyato et al., 2018).

The singular value comes from one step of the power iteration a forward pass in training mode (their algorithm 1). The
vectors of the iteration are buffers, so that checkpoints hold them. A convolution's weight is taken as the matrix
(out, in * height * width), as in the paper: this bounds the slope of a layer up to a factor of its kernel's size. Other
normalisation in the network has weights of its own, which stay free.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def add_spectral_norm(network: nn.Module) -> None:
    """Put spectral normalisation on all convolutions and linear layers of a network, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)
