"""Pairs of images and reconstructions, for losses that compare the logits of a pair with its distance (GAN-QP)."""

# Axes: B batch.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imtok.config.training import GANQPConfig
from imtok.distributed import from_next_rank, from_previous_rank, is_distributed

_LEAST_DISTANCE = 1e-3  # an eighth of a level of 255: no pair divides by less


@dataclass(frozen=True)
class Pairs:
    """Images and reconstructions, both (B, 3, H, W), and how they are paired; nothing is computed before it is needed.

    `own` pairs an image with its reconstruction, `independent` with that of the image before it in the batch. Batches
    are in random order, so that a fixed shift is as good as a draw, and needs no random state.

    The batch is the joint batch of all ranks, of which each rank holds at least one image: with independent pairs the
    first image of a rank is paired with the last reconstruction of the rank before. There a rank computes one pair
    more, behind its own: that of its last reconstruction with the next rank's image. It has no part in the value of
    `mean`, and brings this reconstruction its gradient.
    """

    images: Tensor
    reconstructions: Tensor
    config: GANQPConfig

    def scales(self) -> Tensor:
        """Return l d(x, x') of each pair, detached, with d at least 1e-3: (B,) float32, (B + 1,) across ranks."""
        difference = (self.images.detach().float() - self._paired(self.reconstructions.detach().float())).flatten(1)
        if self.config.distance == "l1":
            distances = difference.abs().mean(dim=1)
        else:
            distances = difference.square().mean(dim=1).sqrt()
        scales = self.config.scale * distances.clamp_min(_LEAST_DISTANCE)
        return torch.cat([scales, from_next_rank(scales[:1])]) if self._across_ranks else scales

    def differences(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return T(x) - T(x') of each pair, with T an image's mean logit: two (B, ...) -> float32 as `scales`."""
        real_means, fake_means = (logits.float().reshape(len(logits), -1).mean(dim=1) for logits in (real, fake))
        differences = real_means - self._paired(fake_means)
        if not self._across_ranks:
            return differences
        return torch.cat([differences, from_next_rank(real_means[:1]) - fake_means[-1:]])

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over this rank's pairs of values of `differences` and `scales`, ()."""
        if not self._across_ranks:
            return values.mean()
        own, behind = values[:-1], values[-1]
        return own.mean() + (behind - behind.detach()) / len(own)

    @property
    def _across_ranks(self) -> bool:
        return self.config.pairing == "independent" and is_distributed()

    def _paired(self, values: Tensor) -> Tensor:
        """Bring values of reconstructions into the order of their images: (B, ...); raises ValueError on one alone."""
        if self.config.pairing == "own":
            return values
        if self._across_ranks:
            return torch.cat([from_previous_rank(values[-1:]), values[:-1]])
        if len(values) < 2:
            raise ValueError("one image has no other reconstruction to be paired with; take two or pairing='own'")
        return values.roll(1, dims=0)
