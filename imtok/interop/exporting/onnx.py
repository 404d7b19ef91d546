"""Tokenizers as ONNX: `encoder.onnx` and `decoder.onnx`, which onnxruntime and others run without torch.

torch's exporter translates the graphs of `torch.export`. The files hold names for the free axes, and neither paths nor
lines of the code that they were traced from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from imtok.interop.exporting.format import Format, Layout, Runtime
from imtok.interop.exporting.graphs import Graphs, trace
from imtok.tokenizer import Tokenizer

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_OPSET = 18  # the newest that torch 2.11 writes without a conversion; every operator needed is in it


class ONNX(Format):
    """Inputs and outputs are named `images` and `codes`."""

    name: ClassVar[str] = "onnx"
    runtime: ClassVar[str] = "onnxruntime"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    def write(self, tokenizer: Tokenizer, folder: Path) -> Layout:
        """See `Format.write`; weights beyond the 2 GB of a protobuf go to a file of their own, `encoder.onnx.data`."""
        graphs = trace(tokenizer)
        save_graphs(graphs, folder)
        return graphs.layout

    def read(self, folder: Path) -> Runtime:
        """See `Format.read`."""
        return _Sessions(folder)


def save_graphs(graphs: Graphs, folder: Path) -> None:
    """Translate both graphs, and write them into `folder`."""
    save_program(graphs.encoder, folder / ENCODER, ["images"], ["codes"], graphs.axis_names)
    save_program(graphs.decoder, folder / DECODER, ["codes"], ["images"], graphs.axis_names)


class _Sessions(Runtime):
    def __init__(self, folder: Path) -> None:
        self.encoder, self.decoder = open_session(folder / ENCODER), open_session(folder / DECODER)

    def encode(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.encoder.run(["codes"], {"images": images.numpy()})[0])

    def decode(self, codes: Tensor) -> Tensor:
        return torch.from_numpy(self.decoder.run(["images"], {"codes": codes.numpy()})[0])


def open_session(path: Path) -> Any:
    """Open a file in onnxruntime, on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def save_program(
    program: ExportedProgram, path: Path, sources: list[str], results: list[str], axis_names: dict[str, str]
) -> None:
    """Translate a graph and write it, its inputs and outputs under these names, its free axes under theirs."""
    with _quiet():
        translated = torch.onnx.export(
            program, (), input_names=sources, output_names=results, opset_version=_OPSET, dynamo=True, verbose=False
        )
    assert translated is not None  # as it is with dynamo=True
    for value in _values(translated.model):
        value.metadata_props.clear()
        if value.shape is not None:
            value.shape = type(value.shape)(_named(axis, axis_names) for axis in value.shape)
    for node in translated.model.graph.all_nodes():
        node.metadata_props.clear()
    translated.save(path)


def _values(model: Any) -> Iterator[Any]:
    """Yield every value of a model once: inputs, weights, and the outputs of all nodes."""
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _named(axis: Any, names: dict[str, str]) -> int | str | None:
    """Put the names of free axes in the place of torch's symbols, 8*s39 -> 8*h; an unknown length stays unknown."""
    if isinstance(axis, int):
        return axis
    if axis.value is None:  # and gets no name: onnxruntime takes axes of one name for equal
        return None
    return re.sub(r"\bs\d+\b", lambda found: names.get(found[0], found[0]), str(axis.value))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxscript, which reports each operator of several results that it does not compute beforehand."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
