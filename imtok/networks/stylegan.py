"""The residual discriminator of StyleGAN2 (Karras et al., 2020), in the form LlamaGen trains with.

It gives one logit for the whole image, and so is built for one size. Unlike StyleGAN2's it has no minibatch statistics,
so that the logit of an image does not depend on the others in the batch, and no equalised learning rates. Widths follow
the distance from the smallest grid. For powers of two that is the published table, and other sizes can be trained on
too.
"""

# Axes: B batch, C and O channels in and out, H x W image or grid.

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Discriminator
from imtok.networks.blur import Blur
from imtok.networks.checks import refuse_below

_SMALLEST_GRID = 4


class StyleGANDiscriminator(Discriminator):
    """Square images of one size to one logit each; high means real.

    size
        Side of the images, 4 or more. It is halved, rounded up, until a grid of 4 to 7 is left.
    channels
        Greatest width, at grids of up to eight times the smallest (32 where `size` is a power of two); finer grids
        have half of it with each doubling.
    """

    def __init__(self, size: int, channels: int = 512) -> None:
        super().__init__()
        refuse_below(_SMALLEST_GRID, size=size)
        refuse_below(1, channels=channels)
        self.size = size
        grids = [size]
        while grids[-1] >= 2 * _SMALLEST_GRID:
            grids.append((grids[-1] + 1) // 2)
        widths = [max(1, channels >> max(0, halvings - 3)) for halvings in reversed(range(len(grids)))]
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*map(StyleGANBlock, widths[:-1], widths[1:]))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.hidden = nn.Linear(channels * grids[-1] ** 2, channels)
        self.head = nn.Linear(channels, 1)

    @property
    def min_size(self) -> int:
        """Least side of an image, which is the only one."""
        return self.size

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) in [-1, 1] -> logits (B, 1).

        Logits have autocast's type where there is one. Raises ValueError on images of another size.
        """
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise ValueError(
                f"images are {height} x {width}, this discriminator was built for {self.size} x {self.size}; "
                "build it for the size of the crops, or take PatchDiscriminator"
            )
        x = _activate(self.conv(self.blocks(_activate(self.stem(images)))))
        logits: Tensor = self.head(_activate(self.hidden(x.flatten(1))))
        return logits


class StyleGANBlock(nn.Module):
    """Two convolutions, a blur and a strided convolution beside a strided skip; their sum keeps its variance."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels, out_channels, 1, stride=2)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.blur = Blur(3, border="reflect")
        self.down = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, ceil(H / 2), ceil(W / 2))."""
        hidden = _activate(self.conv2(_activate(self.conv1(x))))
        out: Tensor = (self.down(self.blur(hidden)) + self.skip(x)) * 0.5**0.5
        return out


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)  # of a layer's fresh output, which nothing else reads
