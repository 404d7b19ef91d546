"""Configuration of the parts of a training run: data, losses, discriminator and optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from imtok.networks.discriminator_config import DiscriminatorConfig
from imtok.records import Record

_Beta = Annotated[float, Field(ge=0, lt=1)]
_Share = Annotated[float, Field(ge=0, lt=1)]
_LARGEST_WINDOW = 8  # shards; a rank keeps two windows in memory, several GB of common shards
_MOST_FAILURES = 8  # shards
_VGG_SIZE = 16  # pixels a side of which VGG16's last level has one left

AdversarialKind = Literal["hinge", "non_saturating", "saturating", "least_squares", "wasserstein", "gan_qp"]
PenaltyPlace = Literal["images", "reconstructions", "both", "interpolates"]


class DataConfig(Record):
    """The choice of images and crops for training and validation."""

    crop: int = Field(96, ge=1, description="side of the random training crops, at the tokenizer's `size`")
    flip: bool = Field(True, description="mirror half of the crops")
    permute_channels: bool = Field(
        False, description="permute the colour channels of half of the crops: colours for sets of few pictures"
    )
    val_fraction: float = Field(0.05, ge=0, lt=1, description="held out for validation, chosen by key")
    val_images: int = Field(256, ge=1, description="at most this many images are measured at a validation")
    cache_gb: float = Field(2.0, ge=0, description="memory for decoded images, so that small sets decode once")
    workers: int = Field(2, ge=1, le=1024, description="threads that decode images")
    rules: Literal["auto", 1, 2] = Field(
        "auto", description="by which sources become images; auto: 2, and 1 for a run that was begun before they were"
    )
    max_pixels: int = Field(178_956_970, ge=1, description="pictures of more pixels are skipped")
    salvage_images: bool = Field(False, description="take what can be read of truncated pictures")
    stream: bool | Literal["auto"] = Field(
        "auto", description="tars are read in order, a window of shards at a time, and not indexed; auto: URLs alone"
    )
    window: int = Field(
        0,
        ge=0,
        description="shards whose images are shuffled together in a stream; 0: chosen by their number, 8 at most",
    )
    max_shard_failures: int | Literal["auto"] = Field(
        "auto", description="shards of a stream that may fail before the run ends; auto: a tenth of them, 8 at most"
    )
    shard_cache: str = Field("", description="folder of this machine that keeps remote shards; empty: none")
    shard_cache_gb: float = Field(20.0, gt=0, description="most that `shard_cache` holds; the longest unused go first")

    @field_validator("max_shard_failures")
    @classmethod
    def _check_failures(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError("must be 0 or more")
        return value

    def chosen_window(self, shards: int) -> int:
        """Return the shards of a window, for a stream of so many: enough to mix, few enough for the memory."""
        return self.window or min(_LARGEST_WINDOW, max(1, math.isqrt(shards)))

    def allowed_failures(self, shards: int) -> int:
        """Return how many shards may fail, of so many: single broken ones must not end a long run, an outage must."""
        if self.max_shard_failures != "auto":
            return self.max_shard_failures
        return min(_MOST_FAILURES, shards // 10)


class LossConfig(Record):
    """Weights of the reconstruction losses; those of the quantizer's losses are in its own record."""

    l1: float = Field(0.0, ge=0)
    l2: float = Field(1.0, ge=0)
    perceptual: float = Field(0.0, ge=0, description="LPIPS on VGG16's features; above 0 it needs VGG16's weights")
    perceptual_weights: str = Field(
        "", description="file of VGG16's weights; without it they are fetched once and kept in torch's cache"
    )
    logit_laplace: float = Field(
        0.0, ge=0, description="likelihood of pixels (DALL-E), in place of the others; the decoder has six channels"
    )

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, values: Any) -> Any:
        """Leave l2 out beside logit_laplace, unless it is given."""
        return {"l2": 0.0, **values} if isinstance(values, Mapping) and values.get("logit_laplace") else values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.logit_laplace > 0 and max(self.l1, self.l2, self.perceptual) > 0:
            raise ValueError(
                "logit_laplace is a loss of a decoder of six channels, the others are of its pixels; set l1, l2 and "
                "perceptual to 0, or logit_laplace"
            )
        if max(self.l1, self.l2, self.logit_laplace) == 0:
            raise ValueError("l1 and l2 are both 0; one must be above 0")
        return self

    @property
    def decoder_output(self) -> Literal["pixels", "logit_laplace"]:
        """The output that the decoder must be built for."""
        return "logit_laplace" if self.logit_laplace > 0 else "pixels"

    @property
    def min_size(self) -> int:
        """Least side of the images, pixels."""
        return _VGG_SIZE if self.perceptual > 0 else 1


class PenaltyConfig(Record):
    """A penalty on the slope of an image's mean logit: weight * E[(|dD/dx| - center)^2]; a weight of 0 leaves it out.

    WGAN-GP (Gulrajani et al., 2017) has a weight of 10 and a center of 1 at interpolates.
    """

    weight: float = Field(0.0, ge=0, description="of the mean over the points of the batch; `both` adds two means")
    at: PenaltyPlace = Field("images", description="where slopes are taken; interpolates: between image and its own")
    center: float = Field(0.0, ge=0, description="the slope without a penalty; WGAN-GP has 1")
    every: int = Field(1, ge=1, description="discriminator steps between penalties, each weighing that many times")


class GANQPConfig(Record):
    """The quadratic potential of GAN-QP (Su, 2018), used by `loss: gan_qp` alone."""

    pairing: Literal["own", "independent"] = Field(
        "own", description="an image is paired with its own reconstruction, or with that of its neighbour in the batch"
    )
    distance: Literal["l1", "l2"] = Field("l1", description="mean absolute or root-mean-square difference of a pair")
    scale: float = Field(10.0, gt=0, description="the l of the paper: logits of a pair part by l times its distance")


class AdversarialConfig(Record):
    """The discriminator and the weight of the generator's loss from it; a weight of 0 leaves it out."""

    weight: float = Field(0.0, ge=0, description="of the generator's adversarial loss, once fully ramped; 0: none")
    adaptive: bool = Field(
        False, description="multiply by the ratio of reconstruction to adversarial gradient at the last decoder layer"
    )
    adaptive_max: float = Field(
        100.0, gt=0, description="upper limit of that ratio; published 10000, at which losses jump"
    )
    loss: AdversarialKind = "hinge"
    gan_qp: GANQPConfig = GANQPConfig()
    update: Literal["separate", "simultaneous"] = Field(
        "separate",
        description="the discriminator runs on reconstructions once for each player, or once for both (saves time)",
    )
    start: _Share = Field(0.25, description="share of the run after which the generator's adversarial loss is active")
    warmup: _Share = Field(0.05, description="share of the run before `start` in which the discriminator learns alone")
    ramp: _Share = Field(0.1, description="share of the run over which the weight rises from 0 after `start`")
    r1: float = Field(
        0.0, ge=0, description="weight of the R1 penalty on the gradient of the mean logit at images; published 10"
    )
    r1_every: int = Field(16, ge=1, description="steps between R1 penalties, each weighing that many times as much")
    penalty: PenaltyConfig = PenaltyConfig()
    lecam: float = Field(0.001, ge=0, description="weight of LeCAM, which holds logits near their moving averages")
    lecam_decay: float = Field(0.999, ge=0, lt=1)
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    critic_steps: int = Field(
        1, ge=1, description="discriminator steps for each of the tokenizer, on further batches, once both are active"
    )
    learning_rate: float = Field(2e-4, gt=0, description="of the discriminator, falling as the generator's does")
    betas: tuple[_Beta, _Beta] = (0.5, 0.9)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup > self.start:
            raise ValueError(
                f"warmup {self.warmup:g} is longer than what lies before start {self.start:g}; set adversarial.warmup="
                f"{self.start:g} or less too"
            )
        if self.start + self.ramp > 1:
            raise ValueError(
                f"start {self.start:g} and ramp {self.ramp:g} go beyond the end of the run; lower adversarial.ramp too"
            )
        if self.enabled:
            self._check_penalties()
        return self

    def _check_penalties(self) -> None:
        """Refuse a critic whose slope nothing bounds, and penalties that are counted twice."""
        if self.r1 > 0 and self.penalty.weight > 0 and self.penalty.at in ("images", "both"):
            raise ValueError("r1 and penalty both penalise slopes at images; set adversarial.r1=0 or move penalty.at")
        if self.loss != "wasserstein":
            return
        penalised, discriminator = self.r1 > 0 or self.penalty.weight > 0, self.discriminator
        if not penalised and not discriminator.spectral_norm:
            raise ValueError(
                "a wasserstein critic needs a bound on its slope: set adversarial.penalty={weight: 10, center: 1, at: "
                "interpolates} or adversarial.discriminator={spectral_norm: true, norm: none}"
            )
        if not penalised and discriminator.has_norm:
            raise ValueError(
                "spectral_norm does not bound a wasserstein critic that has other normalisation, whose weights are "
                "free: set adversarial.discriminator={kind: patchgan, norm: none} too, or add adversarial.penalty"
            )
        if discriminator.kind == "patchgan" and discriminator.norm == "batch":
            raise ValueError("a wasserstein critic judges each image alone: set adversarial.discriminator.norm=group")

    @property
    def enabled(self) -> bool:
        """The run has a discriminator."""
        return self.weight > 0


class OptimizerConfig(Record):
    """AdamW with linear warm-up, then cosine to zero."""

    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the run")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm above which gradients are scaled down")
