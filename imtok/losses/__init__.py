"""Losses: reconstruction, perceptual and adversarial, all of images in [-1, 1] and in float32."""

from imtok.config.training import AdversarialKind
from imtok.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    adaptive_weight,
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    ramp,
)
from imtok.losses.backbone import cached_vgg_weights, find_vgg_weights
from imtok.losses.base import LossTerm
from imtok.losses.logit_laplace import (
    OUTPUT_CHANNELS,
    logit_laplace_loss,
    map_pixels,
    output_to_images,
    unmap_pixels,
)
from imtok.losses.pairs import Pairs
from imtok.losses.penalties import LeCAM, gradient_penalty, interpolate, penalty_points, r1_penalty
from imtok.losses.perceptual import PerceptualLoss, feature_distance
from imtok.losses.terms import loss_terms

__all__ = [
    "ADVERSARIAL_LOSSES",
    "OUTPUT_CHANNELS",
    "AdversarialKind",
    "AdversarialLoss",
    "LeCAM",
    "LossTerm",
    "Pairs",
    "PerceptualLoss",
    "adaptive_weight",
    "cached_vgg_weights",
    "discriminator_accuracy",
    "discriminator_loss",
    "feature_distance",
    "find_vgg_weights",
    "generator_loss",
    "gradient_penalty",
    "interpolate",
    "logit_laplace_loss",
    "loss_terms",
    "map_pixels",
    "output_to_images",
    "penalty_points",
    "r1_penalty",
    "ramp",
    "unmap_pixels",
]
