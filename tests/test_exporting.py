"""Tokenizers as graphs: equal codes under torch.export and onnxruntime, for every kind of quantizer and free shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import noise
from making import QUANTIZERS, picture
from packaging.version import Version
from PIL import Image
from published import imported, written
from torch import Tensor, nn

import imtok
from imtok.config import TokenizerConfig
from imtok.interop.exporting import onnx, torch_export
from imtok.interop.exporting.format import Runtime
from imtok.interop.exporting.graphs import Graphs, exported, trace
from imtok.networks.conv_config import ConvConfig
from imtok.networks.vqgan_config import VQGANConfig
from imtok.tokenizer import Tokenizer

MODULES = {"torch-export": torch_export, "onnx": onnx}
READERS = {"torch-export": torch_export.TorchExport().read, "onnx": onnx.ONNX().read}
KINDS = ["fsq", "vq", "cosine", "simvq", "ibq", "lfq", "bsq", "gumbel", "residual-shared", "product"]
NETWORKS = {
    "conv-attention": ConvConfig(patch_size=2, channels=(4, 8), blocks=1, attention=True),
    "vqgan": VQGANConfig(
        channels=(4, 8),
        blocks=1,
        attention_stages=(1,),
        latent_channels=None,
        norm_groups=4,
        downsampling="average",
        upsampling="depth_to_space",
        shortcut="output",
        adaptive_norm=True,
        image_range="0..1",
    ),
}
OUTPUTS = {"conv-attention": "logit_laplace"}  # elsewhere pixels


def make(kind: str = "fsq", **options: Any) -> Tokenizer:
    """An untrained tokenizer of a few layers, whose codes vary."""
    torch.manual_seed(0)
    options = {"network": ConvConfig(patch_size=4, channels=(4,), blocks=1), "size": 32} | options
    return Tokenizer(TokenizerConfig(quantizer=QUANTIZERS[kind], **options)).eval().requires_grad_(False)


def images(tokenizer: Tokenizer, batch: int, h: int, w: int) -> Tensor:
    side = tokenizer.downsample
    return torch.rand(batch, 3, h * side, w * side, generator=torch.Generator().manual_seed(h)) * 2 - 1


def read_back(graphs: Graphs, name: str, folder: Path) -> Runtime:
    (folder / name).mkdir()
    MODULES[name].save_graphs(graphs, folder / name)
    return READERS[name](folder / name)


def assert_equal(runtime: Runtime, tokenizer: Tokenizer, *shapes: tuple[int, int, int]) -> None:
    seen = set()
    for shape in shapes:
        given = images(tokenizer, *shape)
        codes = tokenizer.encode(given)
        found = runtime.encode(given)
        assert found.dtype == torch.int64
        assert torch.equal(found, codes)
        torch.testing.assert_close(runtime.decode(codes), tokenizer.decode(codes), rtol=0, atol=1e-5)
        seen |= set(codes.flatten().tolist())
    assert len(seen) > 3  # or equality would say little


class Quantizing(nn.ModuleDict):
    """Latents (B, 8, h, w) to the codes of several quantizers, each of as many channels as it takes."""

    def forward(self, latents: Tensor) -> list[Tensor]:
        return [each(latents[:, : each.dim]).codes for each in self.values()]


class LookingUp(nn.ModuleDict):
    """Whole numbers (B, h, w) to the latents of several quantizers, the code of all codebooks alike."""

    def forward(self, numbers: Tensor) -> list[Tensor]:
        found = []
        for each in self.values():
            codes = numbers % each.num_codes
            tail = () if each.num_codebooks == 1 else (each.num_codebooks,)
            found.append(each.lookup(codes if not tail else codes.unsqueeze(-1).expand(*codes.shape, *tail)))
        return found


@pytest.fixture(scope="module")
def quantizers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: QUANTIZERS[name].build().eval().requires_grad_(False) for name in KINDS}


def run_both(module: nn.Module, example: Tensor, given: Tensor, folder: Path) -> dict[str, list[Tensor]]:
    """The results for `given` of a module that was exported with `example`, under torch.export and onnxruntime."""
    program = exported(module, example, {0: torch.export.Dim("batch")})  # free sides are tested with the networks
    names = [f"of_{index}" for index in range(len(KINDS))]
    onnx.save_program(program, folder / "all.onnx", ["given"], names, {})
    found = onnx.open_session(folder / "all.onnx").run(names, {"given": given.numpy()})
    return {"torch-export": program.module()(given), "onnx": [torch.from_numpy(each) for each in found]}


def test_codes_of_every_quantizer_are_equal_in_both_formats(quantizers: dict[str, nn.Module], tmp_path: Path) -> None:
    module, latents = Quantizing(quantizers).eval(), noise(3, 8, 9, 4, seed=1)
    expected = dict(zip(quantizers, module(latents), strict=True))
    assert all(len(codes.unique()) > 10 for codes in expected.values())
    for target, results in run_both(module, noise(2, 8, 9, 4, seed=2), latents, tmp_path).items():
        for (name, codes), found in zip(expected.items(), results, strict=True):
            assert found.dtype == torch.int64, (target, name)
            assert torch.equal(found, codes), (target, name)


def test_latents_of_every_quantizer_are_equal_in_both_formats(quantizers: dict[str, nn.Module], tmp_path: Path) -> None:
    module, numbers = LookingUp(quantizers).eval(), torch.arange(3 * 9 * 4).view(3, 9, 4)
    expected = dict(zip(quantizers, module(numbers), strict=True))
    for target, results in run_both(module, torch.zeros(2, 9, 4, dtype=torch.int64), numbers, tmp_path).items():
        for (name, latents), found in zip(expected.items(), results, strict=True):
            torch.testing.assert_close(found, latents, rtol=0, atol=1e-6, msg=f"{target}, {name}")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_codes_of_every_network_are_equal_in_both_formats(name: str, tmp_path: Path) -> None:
    tokenizer = make("cosine", network=NETWORKS[name], decoder_output=OUTPUTS.get(name, "pixels"))
    graphs = trace(tokenizer)
    # torch 2.11 takes the size that `vqgan` is traced at for its only one.
    assert graphs.layout.free_size or (name == "vqgan" and Version(torch.__version__) < Version("2.14"))
    shapes = [(1, 2, 2), (2, 9, 4)] if graphs.layout.free_size else [(1, 16, 16), (2, 16, 16)]
    for target in MODULES:
        assert_equal(read_back(graphs, target, tmp_path), tokenizer, *shapes)


class FixedSize(nn.Module):
    """A network with a position embedding of one size."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.positions = network, nn.Parameter(torch.randn(1, 3, side, side), requires_grad=False)

    def forward(self, given: Tensor) -> Tensor:
        out: Tensor = self.network(given + self.positions)
        return out


def test_a_size_that_the_network_fixes_stays_fixed() -> None:
    tokenizer = make()
    tokenizer.encoder = FixedSize(tokenizer.encoder, 32)  # type: ignore[assignment]
    graphs = trace(tokenizer)
    assert not graphs.layout.free_size
    assert graphs.layout.images == ("batch", 3, 32, 32)
    assert graphs.layout.codes == ("batch", 8, 8)
    given = images(tokenizer, 3, 8, 8)
    assert torch.equal(graphs.encoder.module()(given), tokenizer.encode(given))


@pytest.fixture(scope="module")
def shipped_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer that comes with imtok in both formats."""
    graphs, folder = trace(imtok.load()), tmp_path_factory.mktemp("shipped")
    for name in MODULES:
        read_back(graphs, name, folder)
    return folder


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).movedim(2, 0)[None].float() / 127.5 - 1


@pytest.mark.parametrize("name", MODULES)
def test_codes_of_the_shipped_tokenizer_are_equal(name: str, shipped_files: Path) -> None:
    tokenizer, runtime = imtok.load(), READERS[name](shipped_files / name)
    for seed in range(3):
        given = to_tensor(picture(seed, width=96, height=64))
        codes = tokenizer.encode(given)
        assert len(codes.unique()) > 50
        assert torch.equal(runtime.encode(given), codes)
        torch.testing.assert_close(runtime.decode(codes), tokenizer.decode(codes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_codes_of_photographs_are_equal(name: str, shipped_files: Path, shared: Path) -> None:
    tokenizer, runtime = imtok.load(), READERS[name](shipped_files / name)
    paths = sorted((shared / "data" / "photos").rglob("*.JPEG"))[:4]
    assert paths
    for path in paths:
        given = to_tensor(Image.open(path).convert("RGB").resize((256, 192)))
        assert torch.equal(runtime.encode(given), tokenizer.encode(given))


@pytest.mark.parametrize("family", ["taming", "llamagen"])
def test_codes_of_imported_tokenizers_are_equal_in_both_formats(family: str, tmp_path: Path) -> None:
    tokenizer = imported(written(family, tmp_path / "published"), tmp_path / "imported")
    graphs = trace(tokenizer)
    for name in MODULES:
        assert_equal(read_back(graphs, name, tmp_path), tokenizer, (2, 8, 8), (1, 6, 9))


def test_files_name_axes_and_hold_no_paths(shipped_files: Path) -> None:
    import onnx as onnx_package

    files = [path for path in shipped_files.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        assert str(Path(imtok.__file__).parent).encode() not in path.read_bytes()
    encoder = onnx_package.load(shipped_files / "onnx" / "encoder.onnx").graph
    decoder = onnx_package.load(shipped_files / "onnx" / "decoder.onnx").graph
    assert axes(encoder.input) == axes(decoder.output) == {"images": ["batch", 3, "8*h", "8*w"]}
    assert axes(encoder.output) == axes(decoder.input) == {"codes": ["batch", "h", "w"]}


def axes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }
