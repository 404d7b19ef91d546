"""Encoder and decoder of a tokenizer as graphs of `torch.export`, with free batch and image size where possible."""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample, Q codebooks.

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from imtok.interop.exporting.format import Axis, Layout
from imtok.losses import output_to_images
from imtok.tokenizer import Tokenizer

# Of the example that is traced: not 1, which torch would take for a constant, and no two alike.
_BATCH, _GRID = 2, (3, 5)
_LEAST_GRID = 2  # torch treats an axis of one position as a case of its own


class Encoding(nn.Module):
    """`Tokenizer.encode` without its checks: images (B, 3, H, W) float32 in [-1, 1] -> codes int64."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.encoder, self.quantizer = tokenizer.encoder, tokenizer.quantizer

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w), (B, h, w, Q) for Q > 1 codebooks."""
        codes: Tensor = self.quantizer(self.encoder(images)).codes
        return codes


class Decoding(nn.Module):
    """`Tokenizer.decode` without its checks: codes int64 in [0, K) -> images float32 in [-1, 1]."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.decoder, self.quantizer = tokenizer.decoder, tokenizer.quantizer
        self.output = tokenizer.config.decoder_output

    def forward(self, codes: Tensor) -> Tensor:
        """(B, h, w), (B, h, w, Q) for Q > 1 codebooks -> (B, 3, H, W)."""
        output: Tensor = self.decoder(self.quantizer.lookup(codes))
        return output_to_images(output, self.output).clamp(-1, 1)


@dataclass(frozen=True)
class Graphs:
    """The two halves of a tokenizer as graphs; their tensors are those of the tokenizer."""

    encoder: ExportedProgram
    decoder: ExportedProgram
    layout: Layout
    axis_names: dict[str, str]  # name of each free axis by torch's symbol for it, such as "s34"


def trace(tokenizer: Tokenizer) -> Graphs:
    """Return the graphs of a float32 tokenizer; height and width are free unless a part of it fixes them.

    Where they cannot be free, they are those of `config.size`. The batch is free in any case.
    """
    factor, size = tokenizer.downsample, tokenizer.config.size
    if factor is not None:  # else codes are a sequence, and the network takes one size
        try:
            return _traced(tokenizer, (_GRID[0] * factor, _GRID[1] * factor), free=True)
        except Exception:  # torch has no one type for shapes that a network fixes
            pass
    return _traced(tokenizer, (size, size), free=False)


def _traced(tokenizer: Tokenizer, sides: tuple[int, int], *, free: bool) -> Graphs:
    factor, device, codebooks = tokenizer.downsample or 1, tokenizer.device, _codebooks(tokenizer)
    grid = tokenizer.config.network.grid(*sides)
    images = torch.zeros(_BATCH, 3, *sides, device=device)
    codes = torch.zeros(_BATCH, *grid, *codebooks, dtype=torch.int64, device=device)
    batch, h, w = Dim("batch"), Dim("h"), Dim("w")
    image_axes: dict[int, Any] = {0: batch} | ({2: factor * h, 3: factor * w} if free else {})
    code_axes: dict[int, Any] = {0: batch} | ({1: h, 2: w} if free else {})
    encoder = exported(Encoding(tokenizer), images, image_axes)
    decoder = exported(Decoding(tokenizer), codes, code_axes)
    layout = Layout(
        images=("batch", 3, *((f"{factor}*h", f"{factor}*w") if free else sides)),
        codes=("batch", *(("h", "w") if free else grid), *codebooks),
        least_grid=_LEAST_GRID if free else 1,
    )
    names = axis_names(encoder, layout.images) | axis_names(decoder, layout.codes)
    return Graphs(encoder, decoder, layout, names)


def exported(module: nn.Module, example: Tensor, axes: dict[int, Any]) -> ExportedProgram:
    """Return a module of one input as a graph, without the paths of its code; `axes` are the free ones, as `Dim`."""
    with torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(axes,))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _codebooks(tokenizer: Tokenizer) -> tuple[int, ...]:
    return () if tokenizer.num_codebooks == 1 else (tokenizer.num_codebooks,)


def axis_names(program: ExportedProgram, shape: Sequence[Axis]) -> dict[str, str]:
    """Return the name of each free axis of the graph's input, of such a shape, by the symbol that stands for it."""
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.name == name)
    return {
        symbol: str(axis).rpartition("*")[2]
        for length, axis in zip(node.meta["val"].shape, shape, strict=True)
        for symbol in re.findall(r"\bs\d+\b", str(length))
    }
