"""The list of reconstruction losses that a configuration stands for."""

from __future__ import annotations

from pathlib import Path

from imtok.config.training import LossConfig
from imtok.losses.base import LossTerm
from imtok.losses.logit_laplace import LogitLaplaceTerm
from imtok.losses.perceptual import PerceptualTerm
from imtok.losses.reconstruction import L1Term, L2Term


def loss_terms(config: LossConfig) -> list[LossTerm]:
    """Build the terms in the order in which they are computed and logged; no file is read yet.

    L1 and L2 are in every list on pixels, since a term of weight 0 costs little and tells something in the log.
    """
    if config.logit_laplace > 0:
        return [LogitLaplaceTerm(config.logit_laplace)]
    terms: list[LossTerm] = [L1Term(config.l1), L2Term(config.l2)]
    if config.perceptual > 0:
        weights = Path(config.perceptual_weights) if config.perceptual_weights else None
        terms.append(PerceptualTerm(config.perceptual, weights))
    return terms
