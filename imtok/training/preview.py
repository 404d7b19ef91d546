"""Previews: originals above their reconstructions, as one PNG."""

# Axes: B batch, S side.

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from imtok.data.images import to_picture
from imtok.files import write_atomically
from imtok.tokenizer import Tokenizer, to_uint8

_LARGEST = 1024  # pixels across
_SMALLEST = 96  # pixels a side of each image: smaller ones are enlarged, pixel by pixel


def write_preview(path: Path, tokenizer: Tokenizer, images: Tensor) -> None:
    """Write images (B, 3, S, S) uint8 and, below each, its reconstruction, as a PNG."""
    restored = to_uint8(tokenizer.decode(tokenizer.encode(images))).cpu()
    times = -(-_SMALLEST // images.shape[-1])
    enlarged = [each.repeat_interleave(times, 2).repeat_interleave(times, 3) for each in (images, restored)]
    write_atomically(path, png_bytes(pair_grid(*enlarged)))


def pair_grid(originals: Tensor, restored: Tensor) -> Image.Image:
    """Lay out rows of originals, each above the row of its reconstructions: twice (B, 3, S, S) uint8 -> one image.

    The last row is filled up with white.
    """
    columns = max(1, min(len(originals), _LARGEST // originals.shape[-1]))
    white = torch.full((-len(originals) % columns, *originals.shape[1:]), 255, dtype=torch.uint8)
    above, below = torch.cat([originals, white]), torch.cat([restored, white])
    starts = range(0, len(above), columns)
    rows = [torch.cat([above[start : start + columns], below[start : start + columns]]) for start in starts]
    return to_picture(make_grid(torch.cat(rows), nrow=columns, padding=4, pad_value=255))


def png_bytes(picture: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
