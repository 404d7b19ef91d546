"""Tokenizers as programs of `torch.export`: `encoder.pt2` and `decoder.pt2`, which torch runs without imtok."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from imtok.interop.exporting.format import Format, Layout, Runtime
from imtok.interop.exporting.graphs import Graphs, trace
from imtok.tokenizer import Tokenizer

ENCODER, DECODER = "encoder.pt2", "decoder.pt2"


class TorchExport(Format):
    """`torch.export.load(file).module()` is a function of one tensor."""

    name: ClassVar[str] = "torch-export"
    runtime: ClassVar[str] = "torch"
    packages: ClassVar[tuple[str, ...]] = ()

    def write(self, tokenizer: Tokenizer, folder: Path) -> Layout:
        """See `Format.write`."""
        graphs = trace(tokenizer)
        save_graphs(graphs, folder)
        return graphs.layout

    def read(self, folder: Path) -> Runtime:
        """See `Format.read`."""
        return _Programs(folder)


def save_graphs(graphs: Graphs, folder: Path) -> None:
    """Write both graphs into `folder`."""
    torch.export.save(graphs.encoder, folder / ENCODER)
    torch.export.save(graphs.decoder, folder / DECODER)


class _Programs(Runtime):
    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # torch 2.11 reads weights into memory that is marked read-only, and only ever reads them.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            self.encoder = torch.export.load(folder / ENCODER).module()
            self.decoder = torch.export.load(folder / DECODER).module()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        codes: Tensor = self.encoder(images)
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        images: Tensor = self.decoder(codes)
        return images
