"""Checks of a discriminator: sizes from which nothing can be built, and images that are too small for it."""

# Axes: B batch, H x W image.

from __future__ import annotations

from torch import Tensor


def refuse_below(least: int, **sizes: int) -> None:
    """Raise ValueError where one of the named sizes is less than `least`."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} is {size}, expected {least} or more")


def refuse_small(images: Tensor, min_size: int) -> None:
    """Raise ValueError where a side of the images (B, 3, H, W) is less than `min_size`."""
    height, width = images.shape[-2:]
    if min(height, width) < min_size:
        raise ValueError(
            f"images are {height} x {width}, this discriminator needs {min_size} x {min_size} or more; "
            "take larger crops or fewer layers"
        )
