"""Losses: reconstruction, perceptual and adversarial, all of images in [-1, 1] and in float32."""

from imtok.losses.reconstruction import reconstruction_losses

__all__ = ["reconstruction_losses"]
