"""Evaluation mode for a while: every module gets back the mode that it had, not that of the module it is part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module with all its parts in eval mode within the block, and then each part in the mode it had.

    A frozen encoder beside a decoder that trains so stays frozen. Nothing is written where all are in eval mode, so
    that several threads may share a model.
    """
    awake = [part for part in module.modules() if part.training]
    for part in awake:
        part.training = False
    try:
        yield
    finally:
        for part in awake:
            part.training = True
