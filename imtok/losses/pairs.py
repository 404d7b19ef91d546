"""Pairs of images and reconstructions, for losses that compare the logits of a pair with its distance (GAN-QP)."""

# Axes: B batch.

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from imtok.config.training import GANQPConfig

_LEAST_DISTANCE = 1e-3  # an eighth of a level of 255: no pair divides by less


@dataclass(frozen=True)
class Pairs:
    """Images and reconstructions, both (B, 3, H, W), and how they are paired; nothing is computed before it is needed.

    `own` pairs an image with its reconstruction, `independent` with that of the image before it in the batch. Batches
    are in random order, so that a fixed shift is as good as a draw, and needs no random state.
    """

    images: Tensor
    reconstructions: Tensor
    config: GANQPConfig

    def scales(self) -> Tensor:
        """Return l d(x, x') of each pair, detached, with d at least 1e-3: (B,) float32."""
        difference = (self.images.detach().float() - self._paired(self.reconstructions.detach().float())).flatten(1)
        if self.config.distance == "l1":
            distances = difference.abs().mean(dim=1)
        else:
            distances = difference.square().mean(dim=1).sqrt()
        return self.config.scale * distances.clamp_min(_LEAST_DISTANCE)

    def differences(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return T(x) - T(x') of each pair, with T an image's mean logit: two (B, ...) -> (B,) float32."""
        means = [logits.float().reshape(len(logits), -1).mean(dim=1) for logits in (real, fake)]
        return means[0] - self._paired(means[1])

    def _paired(self, values: Tensor) -> Tensor:
        """Bring values of reconstructions into the order of their images: (B, ...); raises ValueError on one alone."""
        if self.config.pairing == "own":
            return values
        if len(values) < 2:
            raise ValueError("one image has no other reconstruction to be paired with; take two or pairing='own'")
        return values.roll(1, dims=0)
