"""Previews: originals above their reconstructions, as one PNG."""

# Axes: B batch, S side.

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import make_grid

from imtok.data.images import to_picture
from imtok.files import write_atomically
from imtok.tokenizer import Tokenizer, to_uint8

_PADDING = 4  # pixels between images
_LARGEST = 1024  # pixels across
_SMALLEST = 96  # pixels a side of each image: smaller ones are enlarged, pixel by pixel


def write_preview(path: Path, tokenizer: Tokenizer, images: Tensor) -> None:
    """Write images (B, 3, S, S) uint8 and, below each, its reconstruction, as a PNG."""
    restored = to_uint8(tokenizer.decode(tokenizer.encode(images))).cpu()
    times = -(-_SMALLEST // images.shape[-1])
    enlarged = [each.repeat_interleave(times, 2).repeat_interleave(times, 3) for each in (images, restored)]
    write_atomically(path, png_bytes(pair_grid(enlarged[0], enlarged[1])))


def pair_grid(originals: Tensor, restored: Tensor, labels: Sequence[str] = ()) -> Image.Image:
    """Lay out rows of originals, each above the row of its reconstructions: twice (B, 3, S, S) uint8 -> one image.

    The last row is filled up with white. `labels` are written onto the originals; an empty one marks nothing.
    """
    columns = max(1, min(len(originals), _LARGEST // originals.shape[-1]))
    white = torch.full((-len(originals) % columns, *originals.shape[1:]), 255, dtype=torch.uint8)
    above, below = torch.cat([originals, white]), torch.cat([restored, white])
    starts = range(0, len(above), columns)
    rows = [torch.cat([above[start : start + columns], below[start : start + columns]]) for start in starts]
    picture = to_picture(make_grid(torch.cat(rows), nrow=columns, padding=_PADDING, pad_value=255))
    draw, step = ImageDraw.Draw(picture), originals.shape[-1] + _PADDING
    for index, label in enumerate(labels):
        if label:
            row, column = divmod(index, columns)
            place = (_PADDING + column * step + 4, _PADDING + 2 * row * step + 4)
            left, top, right, bottom = draw.textbbox(place, label)
            draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="white")
            draw.text(place, label, fill="black")
    return picture


def png_bytes(picture: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
